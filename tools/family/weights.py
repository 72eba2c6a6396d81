"""Random weights that a wrong implementation cannot hide behind, and the ways makers store them."""

import re

import torch

# Values of FP4 (E2M1) codes, as the OCP microscaling specification gives them.
FP4 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def randomise(model, family, generator):
    """Fills a model's parameters: no gain, bias, sink or router is left at its trivial value."""
    gemma = "gemma" in family.config["model_type"]
    with torch.no_grad():
        for name, p in model.named_parameters():
            mean, std = statistics(name, p, gemma)
            gain = next((g for pattern, g in family.gains.items() if re.search(pattern, name)), 1.0)
            p.copy_(mean + torch.randn(p.shape, generator=generator) * std)
            p.mul_(gain)


def statistics(name, p, gemma):
    """Mean and deviation of a parameter, by its name and shape."""
    leaf = name.rsplit(".", 2)[-2:]
    if "norm" in name.lower() or "ln" in leaf[0]:
        if leaf[1] == "bias":
            return 0.0, 0.3
        return (0.0 if gemma else 1.0), 0.3
    if "sinks" in name:
        return 0.5, 1.0
    if "bias" in leaf[1]:
        return 0.0, 0.5
    if "embed" in name:
        return 0.0, 0.5
    if "router" in name or name.endswith("mlp.gate.weight"):
        return 0.0, 2.0 / p.shape[-1] ** 0.5
    # Queries and keys a little larger, so that attention looks at some positions more than at others.
    gain = 1.5 if "q_proj" in name or "k_proj" in name or "query" in name or "key" in name else 1.0
    return 0.0, gain / p.shape[-1] ** 0.5


def round_to(model, dtype, but=()):
    """Makes each parameter a value of `dtype`, still held in float32, `but` some."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name not in but:
                p.copy_(p.to(dtype))


def final_norm(model):
    """The norm before the logits: its gain sets their scale."""
    return getattr(model.model, "language_model", model.model).norm.weight


def random_mxfp4(shape, exponents, generator):
    """Blocks [..., K/32, 16] and scales [..., K/32] of random FP4 codes, for weights [..., K]."""
    *rows, k = shape
    blocks = torch.randint(0, 256, (*rows, k // 32, 16), dtype=torch.uint8, generator=generator)
    low, high = exponents
    scales = torch.randint(127 + low, 127 + high + 1, (*rows, k // 32), dtype=torch.uint8, generator=generator)
    return blocks, scales


def from_mxfp4(blocks, scales):
    """The weights [..., K] in float32: a byte holds element 2i in its low nibble and 2i+1 in its high one."""
    codes = torch.stack([blocks & 15, blocks >> 4], -1).flatten(-2)
    values = FP4[codes.long()] * torch.exp2(scales.float() - 127)[..., None]
    return values.flatten(-2)


def to_fp8(weight, block):
    """E4M3 codes and float32 scales of a matrix: one for each block of `block` rows and columns."""
    rows, columns = weight.shape
    height, width = block or (rows, columns)
    codes = torch.empty_like(weight, dtype=torch.float8_e4m3fn)
    scales = torch.empty(-(-rows // height), -(-columns // width))
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            at = slice(i * height, (i + 1) * height), slice(j * width, (j + 1) * width)
            # A scale is stored in bfloat16, so it is rounded before it divides.
            scale = (weight[at].abs().max() / 448).bfloat16().float()
            codes[at] = (weight[at] / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
            scales[i, j] = scale
    return codes, scales


def from_fp8(codes, scales, block):
    """The matrix in float32."""
    rows, columns = codes.shape
    height, width = block or (rows // scales.shape[0], columns // scales.shape[1])
    grown = scales.float().repeat_interleave(height, 0).repeat_interleave(width, 1)
    return codes.float() * grown[:rows, :columns]
