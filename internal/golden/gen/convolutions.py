"""Convolutions, pools and batch normalisation: result and the gradient of every input.

Inputs and results are stored with channels last, [B,T,C] or [B,H,W,C]; weights in
PyTorch's order.
"""
import torch
from torch.nn import functional as F

from golden import Cases, project, rand

CONV = {  # input [B,C,...], weight, bias or not, options
    "conv1d": ((3, 4, 9), (6, 4, 3), True, {}),
    "conv1d,strided": ((2, 4, 20), (6, 4, 5), True, {"stride": 3, "padding": 2}),
    "conv1d,dilated": ((2, 4, 12), (6, 4, 3), False, {"dilation": 3, "padding": 4}),
    "conv1d,groups": ((2, 6, 9), (9, 2, 3), True, {"groups": 3, "padding": 1}),
    "conv1d,depthwise": ((2, 7, 9), (7, 1, 4), True, {"groups": 7, "stride": 2}),
    "conv1d,wide": ((2, 33, 40), (65, 33, 3), True, {"padding": 1}),
    "conv1d,spectrum": ((2, 1, 640), (66, 1, 256), False, {"stride": 128}),
    "conv2d": ((2, 3, 7, 6), (5, 3, 3, 2), True, {}),
    "conv2d,options": ((2, 4, 9, 8), (6, 2, 3, 2), True, {"stride": [2, 1], "padding": [1, 2], "dilation": [2, 3], "groups": 2}),
    "conv2d,depthwise": ((2, 5, 6, 7), (5, 1, 3, 3), True, {"groups": 5, "padding": [1, 1]}),
    "conv2d,1x1": ((2, 5, 6, 7), (8, 5, 1, 1), True, {}),
    "conv_transpose1d": ((2, 4, 6), (4, 5, 3), True, {"stride": 2, "padding": 1, "output_padding": 1}),
    "conv_transpose2d": ((2, 4, 5, 6), (4, 3, 3, 2), True, {"stride": [2, 3], "padding": [1, 0], "dilation": [1, 2], "groups": 2, "output_padding": [1, 0]}),
    "max_pool1d": ((2, 3, 11), None, False, {"kernel_size": 3, "stride": 2, "padding": 1}),
    "max_pool2d": ((2, 3, 7, 8), None, False, {"kernel_size": [3, 2], "stride": [2, 3], "padding": [1, 0], "ceil_mode": True}),
    "avg_pool1d": ((2, 3, 11), None, False, {"kernel_size": 4, "padding": 2, "ceil_mode": True}),
    "avg_pool2d": ((2, 3, 7, 8), None, False, {"kernel_size": [3, 2], "stride": [2, 1], "padding": [1, 1], "count_include_pad": False}),
}


def last(x):
    """Channels last."""
    return x.movedim(1, -1).contiguous()


def main():
    cases = Cases("convolutions", 501)
    for name, (shape, weight, biased, options) in CONV.items():
        f = getattr(F, name.split(",")[0])
        x, operands = rand(*shape), []
        if weight:
            groups = options.get("groups", 1)
            out = weight[1] * groups if "transpose" in name else weight[0]
            operands = [rand(*weight)] + ([rand(out)] if biased else [])
        y = f(x, *operands, **options)
        loss, (py,) = project(last(y))
        loss.backward()
        cases.add(name, {"op": name.split(",")[0], "options": options}, x=last(x), dx=last(x.grad), y=last(y), py=py)
        cases.add_named(name, "in.", ((str(i), v) for i, v in enumerate(operands)))
        cases.add_named(name, "d.", ((str(i), v.grad) for i, v in enumerate(operands)))

    lengths = [7, 0, 12, 3]  # each row alone gives what it gives in a padded batch
    x, w, b = rand(4, 5, 12), rand(6, 5, 3), rand(6)
    y = torch.zeros(4, 6, 6)
    rows = [F.conv1d(x[i : i + 1, :, :n], w, b, stride=2, padding=1) for i, n in enumerate(lengths) if n]
    y = torch.cat([F.pad(r, (0, 6 - r.shape[2])) for r in rows[:1]] + [y[:1]] + [F.pad(r, (0, 6 - r.shape[2])) for r in rows[1:]])
    loss, (py,) = project(last(y))
    loss.backward()
    cases.add("conv1d,ragged", {"op": "conv1d", "options": {"stride": 2, "padding": 1}, "lengths": lengths}, x=last(x), dx=last(x.grad), y=last(y), py=py)
    cases.add_named("conv1d,ragged", "in.", (("0", w), ("1", b)))
    cases.add_named("conv1d,ragged", "d.", (("0", w.grad), ("1", b.grad)))

    for name, shape in (("batch_norm", (7, 5)), ("batch_norm,1d", (3, 5, 6)), ("batch_norm,2d", (3, 5, 4, 6))):
        x, g, b = rand(*shape), rand(5), rand(5)
        mean, var = rand(5).detach(), rand(5).detach().abs().float().double() + 0.5
        before = mean.clone(), var.clone()
        infer = F.batch_norm(x.detach(), mean, var, g.detach(), b.detach(), training=False)
        y = F.batch_norm(x, mean, var, g, b, training=True, momentum=0.25)
        loss, (py,) = project(last(y))
        loss.backward()
        cases.add(name, {"op": "batch_norm"}, x=last(x), dx=last(x.grad), y=last(y), infer=last(infer), py=py,
                  mean=before[0], var=before[1], mean_after=mean, var_after=var)
        cases.add_named(name, "in.", (("0", g), ("1", b)))
        cases.add_named(name, "d.", (("0", g.grad), ("1", b.grad)))
    cases.write()


if __name__ == "__main__":
    main()
