package tensor

import "github.com/carousel-ml/carousel/internal/device"

// CTCOptions follows torch.nn.CTCLoss.
type CTCOptions struct {
	Blank int  // the class that stands for no label
	Sum   bool // a row counts by its whole loss, not by its loss divided by its number of labels
}

// CTC is the connectionist temporal classification loss (Graves et al. 2006):
// -log of the probability that the steps of a row, each drawn from the softmax
// of its logits, spell the row's labels once repeats are merged and blanks
// dropped. logits [B,T,V] are raw and may know their lengths; labels [B,L], with
// lengths of their own, are classes other than the blank. The mean over rows,
// each divided by its number of labels, is torch's default; a row without
// labels is divided by 1.
//
// A row needs as many steps as labels, and one more between equal neighbours.
// One that has fewer cannot be spelled: it counts as 0 in the mean, has no
// gradient (torch's zero_infinity) and is listed in short, which is nil
// when all rows fit. The gradient past each row's length is exactly zero.
func CTC(logits *Tensor, labels *Ints, o *CTCOptions) (loss *Tensor, short []int) {
	t := tapeOf("CTC", logits)
	if labels.tapeOf("CTC") != t {
		failf("CTC", "logits and labels live on different tapes")
	}
	if o == nil {
		o = &CTCOptions{}
	}
	if logits.rank != 3 || logits.seq != nil && logits.seq.timeMajor || labels.rank != 2 || labels.dims[0] != logits.dims[0] {
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
	loss = t.Empty(1)
	s.Value = loss.value
	if n := t.record(ctcGrad, loss, logits); n != nil {
		s.DLogits = t.arena.alloc(logits.Len())
		n.spec = s
	}
	t.backend.CTC(s)
	return loss, short
}

// CTCSteps is the fewest steps that can spell these labels.
func CTCSteps(labels []int32) int { return device.CTCSteps(labels) }

func ctcGrad(t *Tape, n *node) {
	if dx, acc := n.in[0].into(); !dx.Zero() {
		t.backend.AddScaled(dx, n.spec.(*device.CTCSpec).DLogits, n.out.grad, acc)
	}
}
