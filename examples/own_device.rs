//! A model on a device that the program has already, such as its window's:
//! `cargo run --release --example own_device MODEL.gguf "Why is the sky blue?"`.

use std::io::Write;

use omnimini::format::Checkpoint;
use omnimini::gpu::Gpu;
use omnimini::{LoadOptions, Model, Options, Part, wgpu};

/// What a program does that draws: here without a window.
async fn device() -> Result<(wgpu::Device, wgpu::Queue), Box<dyn std::error::Error>> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = instance
        .request_adapter(&wgpu::RequestAdapterOptions::default())
        .await?;
    let wanted = wgpu::DeviceDescriptor {
        // Each of these makes models faster, and none is needed.
        required_features: adapter.features()
            & (wgpu::Features::SUBGROUP | wgpu::Features::SHADER_F16),
        required_limits: adapter.limits(),
        ..Default::default()
    };
    Ok(adapter.request_device(&wanted).await?)
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("give a GGUF file and a question")?;
    let question = args.next().unwrap_or("Why is the sky blue?".into());

    let (device, queue) = device().await?;
    let gpu = Gpu::from_device(device.clone(), queue.clone());
    let checkpoint = Checkpoint::open(path)?;
    let model = Model::open_on(gpu, &checkpoint, &LoadOptions::default(), &mut |_, _| {}).await?;
    // The program goes on using `device` and `queue` beside it.
    let mut session = model.session()?;
    let mut answer = session.ask(&question, &Options::default())?;
    while let Some(delta) = answer.next_delta().await? {
        if delta.part == Part::Content {
            write!(std::io::stdout(), "{}", delta.text)?;
            std::io::stdout().flush()?;
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    pollster::block_on(run())
}
