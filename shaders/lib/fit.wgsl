// Factors by which a group of numbers loses least when rounded: the search of src/quant/fit.rs, which says why.

// Groups whose largest magnitude is below this are taken for zeros.
const TINY: f32 = 1e-15;

// a / d, and 0 where d is 0.
fn over(a: f32, d: f32) -> f32 {
    return select(0.0, a / select(d, 1.0, d == 0.0), d != 0.0);
}

// The nearest whole number in low..high, of two the even one.
fn whole(x: vec4<f32>, low: f32, high: f32) -> vec4<f32> {
    return clamp(round(x), vec4<f32>(low), vec4<f32>(high));
}

// Of two numbers the one of larger magnitude; the first where there is none.
fn larger(a: f32, b: f32) -> f32 {
    return select(a, b, abs(b) > abs(a));
}

// The number of largest magnitude among x[first] to x[first + n - 1].
fn extreme(x: ptr<function, array<vec4<f32>, 8>>, first: u32, n: u32) -> f32 {
    var top = 0.0;
    for (var i = first; i < first + n; i++) {
        let v = (*x)[i];
        top = larger(larger(larger(larger(top, v.x), v.y), v.z), v.w);
    }
    return top;
}

// d of x = d * q for half `half` of a group, weighted by x^2; q whole in -end..end - 1.
fn symmetric(x: ptr<function, array<vec4<f32>, 8>>, half: u32, end: f32) -> f32 {
    let top = extreme(x, 4u * half, 4u);
    var d = 0.0;
    if abs(top) < TINY {
        return d;
    }
    var best = 0.0;
    for (var tenth = -9; tenth <= 9; tenth++) {
        let inverse = (-end - 0.1 * f32(tenth)) / top;
        var xq = 0.0;
        var qq = 0.0;
        for (var i = 4u * half; i < 4u * half + 4u; i++) {
            let v = (*x)[i];
            let q = whole(v * inverse, -end, end - 1.0);
            xq += dot(v * v * v, q);
            qq += dot(v * v * q, q);
        }
        if qq > 0.0 && xq * xq > best * qq {
            d = xq / qq;
            best = d * xq;
        }
    }
    return d;
}

// (s, m) of x = s * q - m for a group, weighted by its deviation and |x|; q whole in 0..top, m >= 0. The tries spread
// it over top + first, and tenths more, steps.
fn affine(x: ptr<function, array<vec4<f32>, 8>>, top: f32, first: f32, tenths: u32) -> vec2<f32> {
    var squares = 0.0;
    var lows = vec4<f32>(0.0);
    var highs = (*x)[0];
    for (var i = 0u; i < 8u; i++) {
        let v = (*x)[i];
        squares += dot(v, v);
        lows = min(lows, v);
        highs = max(highs, v);
    }
    let high = max(max(highs.x, highs.y), max(highs.z, highs.w));
    var low = min(min(lows.x, lows.y), min(lows.z, lows.w));
    if high - low < TINY {
        return vec2<f32>(0.0, -low);
    }
    let deviation = sqrt(squares / 32.0);
    let one = vec4<f32>(1.0);
    var w = 0.0;
    var wx = 0.0;
    for (var i = 0u; i < 8u; i++) {
        let v = (*x)[i];
        let weight = deviation + abs(v);
        w += dot(weight, one);
        wx += dot(weight, v);
    }
    var scale = (high - low) / top;
    var least_cost = cost(x, deviation, top, top / (high - low), low, vec2<f32>(scale, low));
    for (var tenth = 0u; tenth <= tenths; tenth++) {
        let inverse = (top + first + 0.1 * f32(tenth)) / (high - low);
        var wq = 0.0;
        var wqq = 0.0;
        var wxq = 0.0;
        for (var i = 0u; i < 8u; i++) {
            let v = (*x)[i];
            let q = whole((v - low) * inverse, 0.0, top);
            let weighted = (deviation + abs(v)) * q;
            wq += dot(weighted, one);
            wqq += dot(weighted, q);
            wxq += dot(weighted, v);
        }
        let determinant = w * wqq - wq * wq;
        if determinant > 0.0 {
            var line = vec2<f32>(w * wxq - wx * wq, wqq * wx - wq * wxq) / determinant;
            if line.y > 0.0 {
                line = vec2<f32>(wxq / wqq, 0.0);
            }
            let paid = cost(x, deviation, top, inverse, low, line);
            if paid < least_cost {
                least_cost = paid;
                scale = line.x;
                low = line.y;
            }
        }
    }
    return vec2<f32>(scale, -low);
}

// The weighted squared error of line.x * q + line.y, where q is x - low in `inverse` steps to one.
fn cost(
    x: ptr<function, array<vec4<f32>, 8>>,
    deviation: f32,
    top: f32,
    inverse: f32,
    low: f32,
    line: vec2<f32>,
) -> f32 {
    var sum = 0.0;
    for (var i = 0u; i < 8u; i++) {
        let v = (*x)[i];
        let q = whole((v - low) * inverse, 0.0, top);
        let difference = q * line.x + line.y - v;
        sum += dot((deviation + abs(v)) * difference, difference);
    }
    return sum;
}
