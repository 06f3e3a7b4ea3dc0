//! Loop devices, loop(4): a file as a block device.

#![allow(unsafe_code)] // ioctl(2) with a structure rustix does not have.

use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4c82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4c0a;
const READ_ONLY: u32 = 1;
/// The device frees itself with its last user.
const AUTOCLEAR: u32 = 4;

/// `struct loop_config` of linux/loop.h with `struct loop_info64` within.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    names: [u64; 16],
    key: [u64; 4],
    init: [u64; 2],
    reserved: [u64; 8],
}

/// A loop device in use, free again when this is dropped and nothing is mounted from it.
#[derive(Debug)]
pub struct LoopDevice {
    /// Path of the device.
    pub path: String,
    _device: OwnedFd,
}

/// Makes a read-only loop device of an open file (`LOOP_CONFIGURE`, Linux 5.8).
///
/// # Errors
/// No free device, no permission.
pub fn attach(file: BorrowedFd<'_>) -> Result<LoopDevice, Errno> {
    let control = open("/dev/loop-control")?;
    // Another process may take the free device first.
    for _ in 0..64 {
        // SAFETY: LOOP_CTL_GET_FREE takes no argument; the descriptor is open.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        if number < 0 {
            return Err(last());
        }
        let path = format!("/dev/loop{number}");
        let device = open(&path)?;
        match configure(&device, file) {
            Ok(()) => return Ok(LoopDevice { path, _device: device.into() }),
            Err(Errno::BUSY) => {}
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::BUSY)
}

fn configure(device: &File, file: BorrowedFd<'_>) -> Result<(), Errno> {
    let config = Config {
        fd: file.as_raw_fd().cast_unsigned(),
        block_size: 0,
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: READ_ONLY | AUTOCLEAR,
        names: [0; 16],
        key: [0; 4],
        init: [0; 2],
        reserved: [0; 8],
    };
    // SAFETY: `config` is the structure LOOP_CONFIGURE reads, alive for the call; both descriptors are open.
    match unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) } {
        0 => Ok(()),
        _ => Err(last()),
    }
}

fn open(path: &str) -> Result<File, Errno> {
    File::open(path).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    #[test]
    fn the_layout_is_the_kernel_s() {
        assert_eq!(size_of::<super::Config>(), 304);
    }

    #[test]
    fn a_device_reads_the_file() {
        if !rustix::process::geteuid().is_root() || !std::path::Path::new("/dev/loop-control").exists() {
            return;
        }
        let mut file = tempfile::tempfile().expect("file");
        file.write_all(&[7; 8192]).expect("write");
        let device = super::attach(file.as_fd()).expect("attach");
        let mut bytes = Vec::new();
        std::fs::File::open(&device.path).expect("open").read_to_end(&mut bytes).expect("read");
        assert_eq!(bytes, [7; 8192]);
    }
}
