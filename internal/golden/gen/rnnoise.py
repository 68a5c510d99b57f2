"""Writes audio/denoise/testdata/rnnoise.safetensors: what the Rust crate nnnoiseless 0.5 makes of the noisy speech of the tests.

    go test ./audio/denoise -run TestReference -dump IN      # the noisy speech, float32 at the scale of 16 bits
    python3 internal/golden/gen/rnnoise.py IN

Needs cargo and numpy, no PyTorch. The crate has the weights of RNNoise's first network built in.
Of the samples every 293rd is kept, of the probabilities of speech all.
"""
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

sys.dont_write_bytecode = True
import tensors

EVERY = 293
FRAME = 480
MANIFEST = """
[package]
name = "reference"
version = "0.1.0"
edition = "2021"
[dependencies]
nnnoiseless = { version = "=0.5.2", default-features = false }
"""
PROGRAM = """
use nnnoiseless::DenoiseState;
use std::io::{Read, Write};
fn main() {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).unwrap();
    let x: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let (mut state, mut y) = (DenoiseState::new(), [0f32; 480]);
    let mut out = std::io::BufWriter::new(std::io::stdout());
    for frame in x.chunks_exact(480) {
        let speech = state.process_frame(&mut y, frame);
        for v in y.iter().chain(&[speech]) { out.write_all(&v.to_le_bytes()).unwrap(); }
    }
}
"""


def main():
    with tempfile.TemporaryDirectory() as dir:
        os.mkdir(os.path.join(dir, "src"))
        for name, text in ("Cargo.toml", MANIFEST), ("src/main.rs", PROGRAM):
            with open(os.path.join(dir, name), "w") as f:
                f.write(text)
        with open(sys.argv[1], "rb") as f:
            out = subprocess.run(["cargo", "run", "--release", "--quiet"], cwd=dir, stdin=f, stdout=subprocess.PIPE, check=True).stdout
    frames = np.frombuffer(out, "<f4").reshape(-1, FRAME + 1)
    y = frames[1:, :FRAME].reshape(-1)[::EVERY] / 32768  # the first is what lies before the beginning
    here = os.path.dirname(os.path.abspath(__file__))
    path = os.path.join(here, "../../../audio/denoise/testdata/rnnoise.safetensors")
    tensors.write(path, {"speech": json.dumps({"every": EVERY})}, {"speech/y": y.astype("<f4"), "speech/probability": frames[:, FRAME].copy()})


main()
