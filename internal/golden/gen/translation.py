"""Ten training steps of small translation models: losses, gradient norms, rates and final weights."""
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from golden import Cases, exact
from training import STEPS, train


class Attention(nn.Module):
    """General (Luong et al. 2015), scaled dot or additive (Bahdanau et al. 2015), with coverage on request."""

    def __init__(self, kind, query, memory, coverage):
        super().__init__()
        self.kind = kind
        if kind != "dot":
            self.key = nn.Linear(memory, query, bias=False)
        if kind == "additive":
            self.query = nn.Linear(query, query)
            self.score = nn.Linear(query, 1, bias=False)
        if coverage:
            self.coverage = nn.Linear(1, query, bias=False) if kind == "additive" else nn.Linear(query, 1, bias=False)

    def forward(self, q, m, mask, covered):
        keys = m if self.kind == "dot" else self.key(m)
        if self.kind == "additive":
            inner = self.query(q)[:, :, None] + keys[:, None]
            if covered is not None:
                inner = inner + self.coverage(covered[..., None])
            scores = self.score(torch.tanh(inner))[..., 0]
        else:
            scores = q @ keys.transpose(1, 2)
            if covered is not None:
                scores = scores + self.coverage(q) * covered
            if self.kind == "dot":
                scores = scores / q.shape[2] ** 0.5
        weights = scores.masked_fill(~mask[:, None], float("-inf")).softmax(-1)
        return weights @ m, weights


class Translator(nn.Module):
    """An encoder-decoder LSTM whose output layer is tied to the vectors of the target's tokens."""

    def __init__(self, s):
        super().__init__()
        self.s = s
        E, H, L, V = s["embedding"], s["hidden"], s["layers"], s["vocabulary"]
        self.source = nn.Embedding(V, E)
        nn.init.uniform_(self.source.weight, -0.5, 0.5)
        self.encoder = nn.LSTM(E, H // 2, L, bidirectional=True, batch_first=True)
        self.bridge_h = nn.ModuleList(nn.Linear(H, H) for _ in range(L))
        self.bridge_c = nn.ModuleList(nn.Linear(H, H) for _ in range(L))
        self.decoder = nn.LSTM(E + (E if s["input_feeding"] else 0), H, L, batch_first=True)
        self.attention = Attention(s["attention"], H, H, s["coverage"])
        self.combine = nn.Linear(2 * H, E)
        self.output = nn.Linear(E, V)
        self.output.weight = self.source.weight

    def forward(self, source, lengths, inputs):
        packed = pack_padded_sequence(self.source(source), lengths, batch_first=True, enforce_sorted=False)
        y, (h, c) = self.encoder(packed)
        m, _ = pad_packed_sequence(y, batch_first=True, total_length=source.shape[1])
        mask = torch.arange(source.shape[1]) < lengths[:, None]
        join = lambda x, maps: torch.stack([f(torch.cat([x[2 * i], x[2 * i + 1]], -1)) for i, f in enumerate(maps)])
        state = torch.tanh(join(h, self.bridge_h)), join(c, self.bridge_c)
        x = self.source(inputs)
        feed = torch.zeros(x.shape[0], 1, x.shape[2])
        covered = torch.zeros(x.shape[0], 1, source.shape[1]) if self.s["coverage"] else None
        outs, repeated = [], []
        for t in range(x.shape[1]):
            step = x[:, t:t + 1]
            if self.s["input_feeding"]:
                step = torch.cat([step, feed], -1)
            h, state = self.decoder(step, state)
            context, weights = self.attention(h, m, mask, covered)
            feed = torch.tanh(self.combine(torch.cat([h, context], -1)))
            outs.append(feed)
            if covered is not None:
                repeated.append(torch.minimum(weights, covered).sum(-1))
                covered = covered + weights
        return self.output(torch.cat(outs, 1)), torch.cat(repeated, 1) if repeated else None


def main():
    cases = Cases("translation", 700)
    B, S, T, V = 5, 7, 6, 12

    def case(name, **settings):
        s = {"embedding": 6, "hidden": 8, "layers": 1, "vocabulary": V, "attention": "general", "input_feeding": False,
             "coverage": False, "coverage_loss": 0.0, "smoothing": 0.1, "batch": B, "source_steps": S, "target_steps": T, **settings}
        model = exact(Translator(s).double())
        lengths = torch.randint(1, S + 1, (STEPS, B))
        source = torch.randint(4, V, (STEPS, B, S))
        source[torch.arange(S) >= lengths[..., None]] = 0
        target_lengths = torch.randint(1, T + 1, (STEPS, B))
        beyond = torch.arange(T) >= target_lengths[..., None]
        outputs = torch.randint(3, V, (STEPS, B, T)).masked_fill(beyond, -100)
        inputs = outputs.roll(1, -1)
        inputs[..., 0] = 2
        inputs[beyond] = 0

        def loss_of(m, step):
            logits, repeated = m(source[step], lengths[step], inputs[step])
            loss = cross_entropy(logits.reshape(-1, V), outputs[step].flatten(), label_smoothing=s["smoothing"])
            if s["coverage_loss"]:
                kept = ~beyond[step]
                loss = loss + s["coverage_loss"] * (repeated * kept).sum() / kept.sum()
            return loss

        train(cases, name, s, model, loss_of, "adamw", {"weight_decay": 1e-2}, 1e-2, 1e-4, 0.5,
              {"source": source, "source_lengths": lengths, "inputs": inputs, "outputs": outputs, "target_lengths": target_lengths})

    case("general")
    case("dot, two layers", attention="dot", layers=2)
    case("additive, feeding", attention="additive", input_feeding=True)
    case("general, feeding, coverage", input_feeding=True, coverage=True, coverage_loss=0.5)
    case("additive, coverage", attention="additive", coverage=True, coverage_loss=1.0)
    cases.write()


if __name__ == "__main__":
    main()
