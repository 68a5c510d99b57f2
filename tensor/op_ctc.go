package tensor

import (
	"cmp"

	"github.com/carousel-ml/carousel/internal/device"
)

// CTCOptions are those of torch.nn.CTCLoss.
type CTCOptions struct {
	Blank int  // the class of no label, 0 to V-1
	Sum   bool // do not divide the loss of a row by its number of labels
}

// CTC returns the connectionist temporal classification loss (Graves et al. 2006):
// -log of the probability that the steps of a row, each drawn from the softmax of
// its logits, spell the row's labels after repeats are merged and blanks removed.
// logits [B,T,V] are not normalised and may carry lengths; labels [B,L], which may
// carry lengths too, are classes other than the blank. As torch's default, loss [1] is
// the mean over rows, each divided by its number of labels (by 1 if it has none).
//
// A row needs [CTCSteps] steps. One that has fewer counts as 0 in the mean, has no
// gradient (torch's zero_infinity) and is listed in short, which is nil if all rows
// fit. The gradient past the length of a row is exactly zero.
//
// CTC panics with a [*ShapeError] if shapes do not fit, or Blank or a label is not
// a class.
func CTC(logits *Tensor, labels *Ints, o *CTCOptions) (loss *Tensor, short []int) {
	t := tapeOf("CTC", logits)
	labels.check("CTC", t)
	checkBatch("CTC", logits)
	o = cmp.Or(o, &CTCOptions{})
	if labels.rank != 2 || labels.dims[0] != logits.dims[0] {
		failf("CTC", "needs logits [B,T,V] and labels [B,L], got %s and %v", describe(logits), labels.dims[:labels.rank])
	}
	s := t.specs.ctc.put(device.CTCSpec{B: logits.dims[0], T: logits.dims[1], V: logits.dims[2], L: labels.dims[1], Logits: logits.value,
		Lens: logits.lens(), Labels: labels.on, Blank: int32(o.Blank), PerLabel: !o.Sum})
	if labels.seq != nil {
		s.LabelLens = labels.seq.on.lengths
	}
	if o.Blank < 0 || o.Blank >= s.V {
		failf("CTC", "the blank must be 0 to %d, got %d", s.V-1, o.Blank)
	}
	for b := range s.B {
		row := labels.v[b*s.L:][:labels.seq.length(b, s.L)]
		for i, c := range row {
			if c < 0 || int(c) >= s.V || c == s.Blank {
				failf("CTC", "label %d of row %d is %d, want a class 0 to %d other than the blank, %d", i, b, c, s.V-1, o.Blank)
			}
		}
		if device.CTCSteps(row) > logits.seq.length(b, s.T) {
			short = append(short, b)
		}
	}
	loss, grads := t.scalar(logits)
	s.Value, s.DLogits = loss.value, grads[0]
	t.backend.CTC(s)
	return loss, short
}

// CTCSteps returns the smallest number of steps that can spell labels: their number,
// and one more for each pair of equal neighbours.
func CTCSteps(labels []int32) int { return device.CTCSteps(labels) }
