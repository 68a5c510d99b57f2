package generate

import (
	"errors"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/tensor"
)

// A probe asks for the token after each segment alone.
func TestProbe(t *testing.T) {
	cfg := small("char")
	cfg.Epochs = 1
	m := trained(t, cfg, story)
	loss, err := m.Probe(t.Context(), learnt(docs(story, "The cat.")), 6)
	if err != nil {
		t.Fatal(err)
	}
	tape := tensor.NewTape(tensor.CPU(), tensor.Train)
	tape.Trace()
	l := loss(tape)
	l.Backward()
	r := tape.Traces()[0]
	if !(l.Item() > 0) || r.B != 6 || r.T != cfg.BPTT {
		t.Fatalf("loss %v of %d rows of %d steps", l.Item(), r.B, r.T)
	}
	dh, dc := r.Grads()
	for b := range r.B {
		last := ((r.Length(b)-1)*r.B + b) * r.H
		for j := range r.H {
			if dc[last+j] != 0 {
				t.Fatalf("row %d: something after its last step counts", b)
			}
		}
		if first := dh[b*r.H]; first == 0 {
			t.Errorf("row %d: no gradient comes to the first step", b)
		}
	}
	var input *data.InputError
	if _, err := m.Probe(t.Context(), &Data{}, 6); !errors.As(err, &input) {
		t.Errorf("no text gives %v", err)
	}
}
