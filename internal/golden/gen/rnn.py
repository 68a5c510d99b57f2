"""nn.LSTM, nn.GRU and nn.RNN: outputs, final states and every gradient."""
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from golden import Cases, exact, project, rand

CELLS = {
    "lstm": lambda *a, **k: nn.LSTM(*a, **k),
    "gru": lambda *a, **k: nn.GRU(*a, **k),
    "rnn_tanh": lambda *a, **k: nn.RNN(*a, nonlinearity="tanh", **k),
    "rnn_relu": lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k),
}

# Lengths in no order, with equal ones, a full row and a row of one step; the
# second list has an empty row, which PyTorch itself refuses.
LENGTHS = [3, 7, 1, 4, 7]
EMPTY = [2, 0, 7, 5, 0]


def run(rnn, x, h0, c0, lengths):
    """What the library defines: PyTorch on the rows that have steps; an empty row
    gives zeros and keeps its initial state."""
    state = None if h0 is None else (h0 if c0 is None else (h0, c0))
    if lengths is None:
        y, final = rnn(x, state)
        return (y, final, None) if not isinstance(final, tuple) else (y, *final)
    steps = torch.tensor(lengths)
    rows = (steps > 0).nonzero().flatten()
    pick = lambda s: None if s is None else s[:, rows]
    sub = None if h0 is None else (pick(h0) if c0 is None else (pick(h0), pick(c0)))
    packed = pack_padded_sequence(x[rows], steps[rows], batch_first=True, enforce_sorted=False)
    out, final = rnn(packed, sub)
    out, _ = pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])
    final = final if isinstance(final, tuple) else (final,)
    y = torch.zeros(x.shape[0], x.shape[1], out.shape[2]).index_copy(0, rows, out)
    full = []
    for part, start in zip(final, (h0, c0)):
        base = torch.zeros(part.shape[0], x.shape[0], part.shape[2]) if start is None else start
        full.append(base.index_copy(1, rows, part))
    return (y, full[0], full[1] if len(full) > 1 else None)


def case(cases, name, cell, layers, bidirectional, lengths, state, bias, B=5, T=7, I=2, H=3, proj=0):
    rnn = exact(CELLS[cell](I, H, num_layers=layers, bidirectional=bidirectional, bias=bias, batch_first=True,
                            **({"proj_size": proj} if proj else {})).double())
    x = rand(B, T, I)
    if lengths:  # what lies in the padding must not matter
        with torch.no_grad():
            for b, n in enumerate(lengths):
                x[b, n:] *= 50
                x.copy_(x.float().double())
    slots = layers * (2 if bidirectional else 1)
    h0 = rand(slots, B, proj or H, scale=0.5) if state else None
    c0 = rand(slots, B, H) if state and cell == "lstm" else None
    y, hn, cn = run(rnn, x, h0, c0, lengths)
    loss, (py, ph, pc) = project(y, hn, cn)
    loss.backward()
    grad = lambda t: None if t is None else t.grad
    cases.add(
        name,
        {"cell": cell, "layers": layers, "bidirectional": bidirectional, "bias": bias, "lengths": lengths, "state": state,
         "B": B, "T": T, "I": I, "H": H, **({"proj": proj} if proj else {})},
        x=x, h0=h0, c0=c0, y=y, hn=hn, cn=cn, py=py, ph=ph, pc=pc, loss=loss.reshape(1),
        dx=x.grad, dh0=grad(h0), dc0=grad(c0))
    cases.add_named(name, "w.", rnn.named_parameters())
    cases.add_named(name, "d.", ((k, p.grad) for k, p in rnn.named_parameters()))


def main():
    for i, cell in enumerate(CELLS):
        cases = Cases(cell, 100 + i)
        for layers in (1, 2, 3):
            for bidirectional in (False, True):
                base = f"layers={layers},bidirectional={int(bidirectional)}"
                case(cases, base, cell, layers, bidirectional, None, False, True)
                case(cases, base + ",lengths", cell, layers, bidirectional, LENGTHS, False, True)
                case(cases, base + ",state,nobias", cell, layers, bidirectional, None, True, False)
                case(cases, base + ",lengths,state", cell, layers, bidirectional, EMPTY, True, True)
        # Past one vector register and with a tail; a single unit; a single step and row.
        case(cases, "wide", cell, 1, False, [4, 9, 2], True, True, B=3, T=9, I=18, H=21)
        case(cases, "long", cell, 1, True, None, True, True, B=2, T=60, I=2, H=5)
        case(cases, "unit", cell, 2, True, [1, 2], True, True, B=2, T=2, I=1, H=1)
        case(cases, "one", cell, 1, False, None, False, True, B=1, T=1, I=5, H=17)
        cases.write()
    # The LSTM with a projection.
    cases = Cases("lstm_proj", 120)
    for layers, bidirectional in ((1, False), (2, True)):
        base = f"layers={layers},bidirectional={int(bidirectional)}"
        case(cases, base, "lstm", layers, bidirectional, None, False, True, H=5, proj=2)
        case(cases, base + ",state,nobias", "lstm", layers, bidirectional, None, True, False, H=5, proj=2)
        case(cases, base + ",lengths,state", "lstm", layers, bidirectional, EMPTY, True, True, H=5, proj=4)
    case(cases, "wide", "lstm", 1, False, [4, 9, 2], True, True, B=3, T=9, I=18, H=40, proj=19)
    cases.write()
    # Batches and layers larger than one tile of any kernel.
    cases = Cases("rnn_large", 110)
    for cell in ("lstm", "gru"):
        case(cases, cell, cell, 1, False, [int(n) for n in torch.randint(0, 12, (17,))], True, True, B=17, T=11, I=10, H=37)
    cases.write()


if __name__ == "__main__":
    main()
