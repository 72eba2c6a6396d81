//! Any bytes as a GGUF file: a checkpoint or one clear sentence, never a panic, and little memory
//! (run with `-malloc_limit_mb=64`, which holds every single allocation).
#![no_main]

use libfuzzer_sys::fuzz_target;
use omnimini::format::Checkpoint;
use omnimini::quant::{self, Format, Layout};

fuzz_target!(|bytes: &[u8]| {
    let checkpoint = match Checkpoint::from_bytes(bytes.to_vec()) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            let sentence = error.to_string();
            assert!(
                !sentence.contains('\n') && sentence.len() < 1000,
                "{sentence}"
            );
            return;
        }
    };
    for (_, value) in checkpoint.meta.iter() {
        let _ = value.to_string();
    }
    for tensor in checkpoint.tensors() {
        let data = checkpoint.data(tensor).expect("a tensor lies in its file");
        let (rows, cols) = tensor.rows_cols();
        let _ = checkpoint.rows(tensor, 0..rows).expect("so do its rows");
        // What the engine does next.
        let layout = Layout::new(tensor.dtype, rows, cols);
        let mut planes = vec![0; layout.bytes];
        quant::repack_rows(tensor.dtype, &data, rows, cols, &mut planes).expect("sizes fit");
        assert_eq!(
            Format::of(tensor.dtype).row_bytes(cols).unwrap() * rows,
            data.len()
        );
    }
});
