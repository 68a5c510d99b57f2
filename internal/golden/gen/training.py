"""Ten training steps of small models: losses, gradient norms, rates and final weights."""
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from golden import Cases, exact, rand
from losses import pinball
from optimizers import build

STEPS = 10


class Forecaster(nn.Module):
    """A recurrent stack whose last output predicts the whole horizon at once."""

    def __init__(self, cell, inputs, hidden, layers, bidirectional, outputs):
        super().__init__()
        self.rnn = {"lstm": nn.LSTM, "gru": nn.GRU}[cell](inputs, hidden, layers, bidirectional=bidirectional, batch_first=True)
        self.head = nn.Linear(hidden * (2 if bidirectional else 1), outputs)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


class Tagger(nn.Module):
    """A label for every step of padded sequences."""

    def __init__(self, vocabulary, dim, hidden, labels):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, dim, padding_idx=0)
        self.rnn = nn.LSTM(dim, hidden, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * hidden, labels)

    def forward(self, ids, lengths):
        packed = pack_padded_sequence(self.embedding(ids), lengths, batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=ids.shape[1])
        return self.head(y)


def train(cases, name, settings, model, loss_of, rule, options, lr, low, clip, tensors):
    start = [("w0." + k, p.detach().clone()) for k, p in model.named_parameters()]
    opt = build(rule, options, model.parameters(), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=STEPS, eta_min=low)
    losses, norms, rates = [], [], []
    for step in range(STEPS):
        opt.zero_grad()
        loss = loss_of(model, step)
        loss.backward()
        norms.append(nn.utils.clip_grad_norm_(model.parameters(), clip).detach())
        losses.append(loss.detach())
        rates.append(opt.param_groups[0]["lr"])
        opt.step()
        schedule.step()
    settings = {"rule": rule, "options": options, "lr": lr, "min": low, "steps": STEPS, "clip": clip, **settings}
    cases.add(name, settings, losses=torch.stack(losses), norms=torch.stack(norms), rates=torch.tensor(rates), **tensors)
    cases.add_named(name, "", start)
    cases.add_named(name, "w.", model.named_parameters())


def waves(batches, batch, window, horizon, inputs):
    """Windows of noisy daily waves: the first channel's continuation is the target."""
    t = torch.arange(window + horizon, dtype=torch.float64)
    phase = torch.rand(batches, batch, 1, 1) * 24
    tempo = torch.arange(1, inputs + 1, dtype=torch.float64)
    x = torch.sin(2 * torch.pi * (t[:, None] + phase) * tempo / 24) * 4 + 0.1 * rand(batches, batch, window + horizon, inputs).detach()
    x = x.float().double()
    return x[:, :, :window].contiguous(), x[:, :, window:, 0].contiguous()


def main():
    cases = Cases("training", 600)
    quantiles = [0.1, 0.5, 0.9]
    sizes = {"batch": 8, "window": 24, "horizon": 6, "inputs": 3}

    def forecast(name, cell, hidden, layers, bidirectional, loss, rule, options, lr, low, clip=1.0):
        outputs = sizes["horizon"] * (len(quantiles) if loss == "pinball" else 1)
        model = exact(Forecaster(cell, sizes["inputs"], hidden, layers, bidirectional, outputs).double())
        x, y = waves(STEPS, **sizes)

        def loss_of(m, step):
            p = m(x[step])
            if loss == "pinball":
                return pinball(p.reshape(*y[step].shape, -1), y[step], quantiles).mean()
            return {"mse": nn.MSELoss(), "huber": nn.HuberLoss()}[loss](p, y[step])

        settings = {"model": "forecaster", "cell": cell, "hidden": hidden, "layers": layers, "bidirectional": bidirectional,
                    "loss": loss, "quantiles": quantiles, **sizes}
        train(cases, name, settings, model, loss_of, rule, options, lr, low, clip, {"x": x, "y": y})

    forecast("sgd", "lstm", 8, 1, False, "mse", "sgd", {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-3}, 0.05, 1e-3)
    forecast("adam", "lstm", 8, 1, False, "mse", "adam", {"weight_decay": 1e-3}, 1e-2, 1e-4)
    forecast("rmsprop", "lstm", 8, 1, False, "mse", "rmsprop", {"momentum": 0.5}, 1e-3, 1e-4)
    # The forecasting defaults, smaller.
    forecast("forecast", "lstm", 16, 2, False, "mse", "adamw", {"weight_decay": 1e-5}, 1e-3, 1e-5)
    forecast("forecast,quantiles", "gru", 8, 2, True, "pinball", "adamw", {"weight_decay": 1e-2}, 1e-2, 1e-5, 0.3)
    forecast("forecast,huber", "lstm", 8, 3, False, "huber", "adamw", {"weight_decay": 1e-2}, 1e-2, 1e-4, 0.25)

    V, dim, hidden, labels, B, T = 11, 5, 7, 4, 6, 9
    tagger = exact(Tagger(V, dim, hidden, labels).double())
    lengths = torch.randint(1, T + 1, (STEPS, B))
    ids = torch.randint(1, V, (STEPS, B, T))
    ids[torch.arange(T) >= lengths[..., None]] = 0
    classes = (ids * 7 + ids.roll(1, -1)) % labels
    classes[ids == 0] = -100

    def tag(m, step):
        return cross_entropy(m(ids[step], lengths[step]).reshape(-1, labels), classes[step].flatten())

    settings = {"model": "tagger", "vocabulary": V, "dim": dim, "hidden": hidden, "labels": labels, "batch": B, "window": T}
    train(cases, "tagger", settings, tagger, tag, "adamw", {"weight_decay": 1e-2}, 1e-2, 1e-4, 0.15,
          {"ids": ids, "lengths": lengths, "classes": classes.clamp(min=0)})
    cases.write()


if __name__ == "__main__":
    main()
