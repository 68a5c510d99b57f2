"""The loss of a linear-chain CRF and its gradients, by the forward algorithm under autograd."""
import torch

from golden import Cases, rand


def negative_log_likelihood(scores, trans, start, end, tags, lengths):
    """Mean over all true steps. scores [B,T,K], tags [B,T], lengths [B]."""
    total = 0.0
    for s, y, n in zip(scores, tags, lengths):
        n = int(n)
        if n == 0:
            continue
        alpha = start + s[0]
        gold = start[y[0]] + s[0, y[0]] + end[y[n - 1]]
        for t in range(1, n):
            alpha = torch.logsumexp(alpha[:, None] + trans, 0) + s[t]
            gold = gold + trans[y[t - 1], y[t]] + s[t, y[t]]
        total = total + torch.logsumexp(alpha + end, 0) - gold
    return total / lengths.sum()


def main():
    cases = Cases("crf", 700)
    for B, T, K in ((1, 1, 2), (3, 7, 5), (4, 20, 9), (2, 30, 33)):
        for spread in (0.3, 3.0, 30.0):
            scores, trans = rand(B, T, K, scale=spread), rand(K, K, scale=spread)
            start, end = rand(K, scale=spread), rand(K, scale=spread)
            tags = torch.randint(0, K, (B, T))
            lengths = torch.randint(0, T + 1, (B,))
            lengths[0] = T
            loss = negative_log_likelihood(scores, trans, start, end, tags, lengths)
            (loss + 0 * trans.sum()).backward()  # one step uses no transition
            cases.add(f"{B}x{T}x{K},spread={spread:g}", {}, scores=scores, trans=trans, start=start, end=end, tags=tags, lengths=lengths,
                      loss=loss.reshape(1), dscores=scores.grad, dtrans=trans.grad, dstart=start.grad, dend=end.grad)
    cases.write()


if __name__ == "__main__":
    main()
