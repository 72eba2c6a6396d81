//! The search of the quantisers: factors by which a group of numbers loses least when rounded.
//!
//! A symmetric format has x ≈ d · q, an affine one x ≈ s · q - m with m ≥ 0. For given whole q the
//! best factors follow from weighted least squares; the best q are not known, so scales near the
//! one that just covers the group are tried, each of which rounds x to its own q.
//! Weights and tries are those of llama.cpp's quantisers without an importance matrix, so that
//! files of one type are alike whoever made them; `shaders/lib/fit.wgsl` searches the same way.

/// Groups whose largest magnitude is below this are taken for zeros: squares must not vanish.
pub(super) const TINY: f32 = 1e-15;

/// The number of largest magnitude, with its sign; the first of several. 0 for no numbers.
pub(super) fn extreme(x: &[f32]) -> f32 {
    let larger = |top: f32, &x: &f32| if x.abs() > top.abs() { x } else { top };
    x.iter().fold(0.0, larger)
}

/// a / d, and 0 where d is 0: every code of a block of zeros is then the same.
pub(super) fn over(a: f32, d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { a / d }
}

/// `(d, m)` of x ≈ d · q + m that spreads the range of x over `0..=top`.
pub(super) fn spread(x: &[f32], top: f32) -> (f32, f32) {
    let low = x.iter().copied().fold(f32::INFINITY, f32::min);
    let high = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    ((high - low) / top, low)
}

/// The nearest whole number within `low..=high`, of two the even one.
pub(super) fn whole(x: f32, low: f32, high: f32) -> f32 {
    x.round_ties_even().clamp(low, high)
}

/// d of x ≈ d · q, weighted by x²: q are what `level` rounds to, and each try puts the extreme
/// number at one of `ends`. 0 where all x are.
pub(super) fn symmetric(
    x: &[f32],
    ends: impl IntoIterator<Item = f32>,
    level: impl Fn(f32) -> f32,
) -> f32 {
    let top = extreme(x);
    if top.abs() < TINY {
        return 0.0;
    }
    // With d = xq / qq the error is Σ w x² - xq² / qq: the largest quotient wins.
    let (mut d, mut best) = (0.0, 0.0);
    for end in ends {
        let inverse = end / top;
        let (mut xq, mut qq) = (0.0, 0.0);
        for &x in x {
            let q = level(inverse * x);
            xq += x * x * x * q;
            qq += x * x * q * q;
        }
        if qq > 0.0 && xq * xq > best * qq {
            d = xq / qq;
            best = d * xq;
        }
    }
    d
}

/// d of x ≈ d · q, weighted by x², q whole in `-end..end`: from the q that cover the group, one
/// after another is moved to where it would serve best, as long as that helps.
pub(super) fn descend(x: &[f32], end: f32) -> f32 {
    const SWEEPS: usize = 5;
    let top = extreme(x);
    if top.abs() < TINY {
        return 0.0;
    }
    let round = |q: f32| whole(q, -end, end - 1.0);
    let mut q: Vec<f32> = x.iter().map(|x| round(-end / top * x)).collect();
    let (mut xq, mut qq) = (0.0, 0.0);
    for (x, q) in x.iter().zip(&q) {
        xq += x * x * x * q;
        qq += x * x * q * q;
    }
    for _ in 0..SWEEPS {
        let mut moved = false;
        for (&x, q) in x.iter().zip(&mut q) {
            let w = x * x;
            let (others_xq, others_qq) = (xq - w * x * *q, qq - w * *q * *q);
            if others_xq <= 0.0 {
                continue;
            }
            // What the others alone would make of it.
            let new = round(x * others_qq / others_xq);
            let (new_xq, new_qq) = (others_xq + w * x * new, others_qq + w * new * new);
            if new.total_cmp(q).is_ne() && new_qq > 0.0 && new_xq * new_xq * qq > xq * xq * new_qq {
                (*q, xq, qq, moved) = (new, new_xq, new_qq, true);
            }
        }
        if !moved {
            break;
        }
    }
    if qq > 0.0 { xq / qq } else { 0.0 }
}

/// How an affine group is searched.
#[derive(Clone, Copy)]
pub(super) struct Affine {
    /// The largest q; the least is 0.
    pub(super) top: f32,
    /// Tries spread the group over `top + first`, and tenths more, whole steps.
    pub(super) first: f32,
    /// How many tenths more at most.
    pub(super) tenths: u32,
    /// The weight of a number, by itself and by the mean square of its group.
    pub(super) weight: fn(x: f32, mean_square: f32) -> f32,
    /// What a difference costs.
    pub(super) cost: fn(difference: f32) -> f32,
}

impl Affine {
    /// `(s, m)` of x ≈ s · q - m.
    pub(super) fn fit(&self, x: &[f32]) -> (f32, f32) {
        let mean_square = x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32;
        let weight = |x: f32| (self.weight)(x, mean_square);
        let low = x.iter().copied().fold(0.0, f32::min);
        let high = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if high - low < TINY {
            return (0.0, -low);
        }
        // Rounding starts from `low`, in `inverse` steps to one.
        let round = |x: f32, inverse: f32, low: f32| whole(inverse * (x - low), 0.0, self.top);
        let cost = |inverse: f32, low: f32, (scale, least): (f32, f32)| {
            let one =
                |&x: &f32| weight(x) * (self.cost)(scale * round(x, inverse, low) + least - x);
            x.iter().map(one).sum::<f32>()
        };
        let (mut w, mut wx) = (0.0, 0.0);
        for &x in x {
            w += weight(x);
            wx += weight(x) * x;
        }
        let mut best = ((high - low) / self.top, low);
        let mut least_cost = cost(self.top / (high - low), low, best);
        for tenth in 0..=self.tenths {
            // From where the best so far starts.
            let low = best.1;
            let inverse = (self.top + self.first + 0.1 * tenth as f32) / (high - low);
            let (mut wq, mut wqq, mut wxq) = (0.0, 0.0, 0.0);
            for &x in x {
                let (w, q) = (weight(x), round(x, inverse, low));
                wq += w * q;
                wqq += w * q * q;
                wxq += w * q * x;
            }
            let determinant = w * wqq - wq * wq;
            if determinant <= 0.0 {
                continue;
            }
            let mut line = (
                (w * wxq - wx * wq) / determinant,
                (wqq * wx - wq * wxq) / determinant,
            );
            if line.1 > 0.0 {
                // m is never negative: then a line through the origin.
                line = (wxq / wqq, 0.0);
            }
            let cost = cost(inverse, low, line);
            if cost < least_cost {
                (best, least_cost) = (line, cost);
            }
        }
        (best.0, -best.1)
    }
}
