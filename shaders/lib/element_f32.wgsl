// Tiles in workgroup memory in single precision. Interface of every element_* file: E holds four elements.
alias E = vec4<f32>;

fn narrow(v: vec4<f32>) -> E {
    return v;
}

fn wide(e: E) -> vec4<f32> {
    return e;
}
