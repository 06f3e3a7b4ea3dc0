//! Unpacks a layer tar into a store in a directory and says how fast: `apply <tar[.gz|.zst]> <directory>`.

use std::fs::File;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(tar), Some(dir)) = (arguments.next(), arguments.next()) else {
        return Err("usage: apply <tar> <directory>".into());
    };
    let layers = hull_layer::Layers::open(std::path::PathBuf::from(dir))?;
    let start = Instant::now();
    let staged = layers.stage(File::open(tar)?, None)?;
    let diff_id = staged.diff_id().clone();
    let record = staged.commit(&diff_id, None)?;
    let seconds = start.elapsed().as_secs_f64();
    let megabytes = record.tar_size as f64 / 1e6;
    println!(
        "{} entries, {megabytes:.0} MB in {seconds:.2} s: {:.0} MB/s",
        record.entries,
        megabytes / seconds
    );
    let start = Instant::now();
    layers.remove(&diff_id)?;
    println!("removed in {:.2} s", start.elapsed().as_secs_f64());
    Ok(())
}
