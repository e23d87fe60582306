use attn::backend::Options;
use attn_whisper::{attention::*, audio, transcribe::Transcriber};
use std::path::Path;
fn main() -> Result<(), attn_whisper::error::Error> {
    let _guard = tch::no_grad_guard();
    let a: Vec<String> = std::env::args().collect();
    let t = Transcriber::read(Path::new(&a[1]))?;
    for f in &a[3..] {
        let s = audio::read(Path::new(f))?;
        let start = std::time::Instant::now();
        let x = match a[2].parse::<Choice>()? {
            Choice::Torch(m) => t.transcribe(&s, &mut Torch(m), None)?,
            Choice::Integer(k) => {
                t.transcribe(&s, &mut Integer::new(k, &Options::default(), ScaleRule::Dynamic)?, None)?
            }
        };
        println!("{x}");
        eprintln!("{:?}", start.elapsed());
    }
    Ok(())
}
