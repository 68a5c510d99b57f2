"""Ten training steps of small language models over carried states: losses, gradient norms, final weights, and at the end log p of every token."""
import os

import torch
from torch import nn

from golden import HERE, Cases, exact

STEPS = 10
OUT = os.path.join(HERE, os.pardir, os.pardir, os.pardir, "text", "generate", "testdata")


class Language(nn.Module):
    def __init__(self, vocabulary, embedding, hidden, layers, output, cutoffs):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.rnn = nn.LSTM(embedding, hidden, layers, batch_first=True)
        self.cutoffs = cutoffs
        self.scale = embedding**0.5 if output == "tied" else 1
        if cutoffs:
            self.adaptive = nn.AdaptiveLogSoftmaxWithLoss(hidden, vocabulary, cutoffs, head_bias=True)
        else:
            self.full = nn.Linear(hidden, vocabulary)
            if output == "tied":
                self.full.weight = self.embedding.weight

    def outputs(self, ids, state):
        y, state = self.rnn(self.embedding(ids) * self.scale, state)
        return y.flatten(0, 1), state

    def loss(self, y, targets):
        if self.cutoffs:
            return self.adaptive(y, targets).loss
        return nn.functional.cross_entropy(self.full(y), targets)

    def log_prob(self, y):
        return self.adaptive.log_prob(y) if self.cutoffs else self.full(y).log_softmax(-1)


def main():
    cases = Cases("language", 900)
    B, T = 4, 6
    for name, vocabulary, embedding, hidden, layers, output, cutoffs in (
        ("full", 19, 5, 8, 2, "free", []),
        ("tied", 19, 8, 8, 1, "tied", []),
        ("adaptive", 60, 7, 32, 1, "free", [8, 25]),
    ):
        model = Language(vocabulary, embedding, hidden, layers, output, cutoffs).double()
        if output == "tied":
            with torch.no_grad():
                model.embedding.weight /= model.scale
        model = exact(model)
        # Skewed, so that the head and every cluster have their targets.
        text = (vocabulary * torch.rand(B, STEPS * T + 1) ** 2).long()
        start = [("w0." + k, p.detach().clone()) for k, p in model.named_parameters()]
        opt = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0)
        state, losses, norms = None, [], []
        for step in range(STEPS):
            part = text[:, step * T : (step + 1) * T + 1]
            opt.zero_grad()
            y, state = model.outputs(part[:, :-1], state)
            state = tuple(s.detach() for s in state)
            loss = model.loss(y, part[:, 1:].flatten())
            loss.backward()
            norms.append(nn.utils.clip_grad_norm_(model.parameters(), 0.5).detach())
            losses.append(loss.detach())
            opt.step()
        with torch.no_grad():
            p = model.log_prob(model.outputs(text[:, :T], None)[0])
        settings = {"vocabulary": vocabulary, "embedding": embedding, "hidden": hidden, "layers": layers, "output": output,
                    "cutoffs": cutoffs, "batch": B, "steps": T, "lr": 1e-2, "clip": 0.5}
        cases.add(name, settings, text=text, losses=torch.stack(losses), norms=torch.stack(norms), log_prob=p)
        cases.add_named(name, "", start)
        cases.add_named(name, "w.", model.named_parameters())
    cases.write(OUT)


if __name__ == "__main__":
    main()
