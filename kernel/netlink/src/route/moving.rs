//! Moving a link to another network namespace with the addresses it has: the kernel takes those away.

use super::*;

// linux/if_addr.h
const IFA_FLAGS: u16 = 8;
const IFA_F_PERMANENT: u32 = 0x80;
const RT_SCOPE_UNIVERSE: u8 = 0;

/// A permanent address of global scope, of any family, as the kernel told it and takes it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermanentAddress {
    family: u8,
    length: u8,
    flags: u32,
    /// Local and peer or broadcast address.
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Route {
    /// The permanent addresses of global scope that a link has.
    ///
    /// # Errors
    /// The kernel refused, or its answer could not be read.
    pub fn permanent_addresses(&self, link: u32) -> Result<Vec<PermanentAddress>, NetlinkError> {
        let mut found = Vec::new();
        self.dump(RTM_GETADDR, &[0; 8], "list addresses", |payload| {
            found.extend(parse(payload, link));
        })?;
        Ok(found)
    }
}

impl Requests {
    /// Moves a link to another network namespace, under this name there; a name that ends in `%d` becomes the first that is
    /// free. The link is down and without addresses then.
    pub fn move_link(&mut self, link: u32, netns: BorrowedFd<'_>, name: &str) -> &mut Self {
        self.request(RTM_NEWLINK, 0, format!("move link #{link} as {name}"), |buffer| {
            let mut header = ifinfo(link, 0);
            // Down first: some drivers refuse to be renamed otherwise.
            header[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
            buffer.put(&header);
            buffer.attr(IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes());
            buffer.attr_str(IFLA_IFNAME, name);
        })
    }

    /// Gives a link an address that [`Route::permanent_addresses`] found.
    pub fn restore_address(&mut self, link: u32, address: &PermanentAddress) -> &mut Self {
        let operation = format!("add an address to link #{link}");
        self.request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, operation, |buffer| {
            // struct ifaddrmsg: family, prefix length, flags, scope, index
            buffer.put(&[address.family, address.length, 0, RT_SCOPE_UNIVERSE]);
            buffer.put(&link.to_ne_bytes());
            for (kind, value) in &address.attributes {
                buffer.attr(*kind, value);
            }
            buffer.attr_u32(IFA_FLAGS, address.flags);
        })
    }
}

fn parse(payload: &[u8], link: u32) -> Option<PermanentAddress> {
    let [family, length, flags, scope] = *payload.first_chunk()?;
    if read_u32(payload, 4)? != link || scope != RT_SCOPE_UNIVERSE {
        return None;
    }
    let mut address = PermanentAddress { family, length, flags: flags.into(), attributes: Vec::new() };
    for (kind, value) in attributes(payload.get(8..)?) {
        match kind {
            IFA_FLAGS => address.flags = read_u32(value, 0)?,
            IFA_LOCAL | IFA_ADDRESS | IFA_BROADCAST => address.attributes.push((kind, value.to_vec())),
            _ => {}
        }
    }
    (address.flags & IFA_F_PERMANENT != 0).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_permanent_global_addresses_of_the_link_move() {
        let message = |flags: u8, scope: u8, link: u32| {
            let mut bytes = vec![2, 24, flags, scope];
            bytes.extend(link.to_ne_bytes());
            bytes.extend([8, 0, 2, 0, 10, 0, 0, 1]);
            bytes
        };
        let found = parse(&message(0x80, 0, 7), 7).expect("address");
        assert_eq!(found.attributes, [(IFA_LOCAL, vec![10, 0, 0, 1])]);
        assert_eq!(parse(&message(0, 0, 7), 7), None, "a lease ends");
        assert_eq!(parse(&message(0x80, 253, 7), 7), None, "of the link only");
        assert_eq!(parse(&message(0x80, 0, 8), 7), None, "another link's");
        assert_eq!(parse(&[1, 2], 7), None);
    }
}
