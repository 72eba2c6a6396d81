// act(a) * b.
import package::act::{act};

fn combine(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(act(a.x), act(a.y), act(a.z), act(a.w)) * b;
}
