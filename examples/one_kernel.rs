//! The smallest complete program: one kernel on both machines, the device and the host, and a
//! comparison of the results.
//!
//! `cargo run --example one_kernel`

use grok_wgpu::lab::{
    base::{error::Result, tensor::DType},
    kernels::RmsNorm,
    machine::{
        BufferRole, Machine,
        gpu::{AdapterChoice, Gpu, LimitProfile},
        host::{Fill, Host},
        kernel::Executor,
    },
};

fn main() -> Result<()> {
    pollster::block_on(run())
}

async fn run() -> Result<()> {
    let shape = [4, 1024];

    // On the host: three tensors, and the kernel's oracle.
    let mut host = Host::with_seed(1);
    let x = host.f32(shape, Fill::Normal);
    let weight = host.f32([1024], Fill::Normal);
    let on_host = RmsNorm { x, weight, eps: 1e-5, out: host.unwritten(shape) };
    host.run(&on_host)?;

    // On a device: the same tensors, and the kernel's shader.
    let mut gpu = Gpu::open(&AdapterChoice::Best, LimitProfile::Baseline).await?;
    let mut upload = |tensor| {
        let grok_wgpu::lab::base::tensor::Tensor { dtype, shape, .. } = tensor;
        let there = gpu.alloc(BufferRole::Storage, dtype, shape)?;
        gpu.write(there, 0, &host.bytes(tensor))?;
        Ok::<_, grok_wgpu::lab::base::error::Error>(there)
    };
    let (x, weight) = (upload(x)?, upload(weight)?);
    let out = gpu.alloc(BufferRole::Storage, DType::F32, shape.into())?;
    let on_device = RmsNorm { x, weight, eps: 1e-5, out };
    let plan = gpu.record(&mut |exec| exec.run(&on_device))?;
    let bytes = gpu.run_plan(&plan, &[out]).await?;

    let got = grok_wgpu::lab::machine::host::decode_rows(DType::F32, 1, &bytes[0]);
    let want = host.floats(on_host.out);
    let worst = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    eprintln!("{}", gpu.caps().describe());
    eprintln!("{} elements, largest difference {worst:.1e}", got.len());
    Ok(())
}
