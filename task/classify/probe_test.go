package classify

import (
	"errors"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/tensor"
)

// A probe is the loss of the first texts whose label is known.
func TestProbe(t *testing.T) {
	cfg := small()
	cfg.Epochs = 1
	list := reviews(80, 1)
	m, _ := fitted(t, cfg, list, nil)
	list[1].Labels = []string{"neither"}
	loss, err := m.Probe(t.Context(), dealt(list, Config{}), 5)
	if err != nil {
		t.Fatal(err)
	}
	tape := tensor.NewTape(tensor.CPU(), tensor.Train)
	tape.Trace()
	l := loss(tape)
	l.Backward()
	r := tape.Traces()[0]
	dh, _ := r.Grads()
	any := false
	for _, v := range dh {
		any = any || v != 0
	}
	if !(l.Item() > 0) || r.B != 5 || !any {
		t.Errorf("loss %v of %d rows, gradient %v", l.Item(), r.B, any)
	}
	var input *data.InputError
	if _, err := m.Probe(t.Context(), dealt(list[1:2], Config{}), 5); !errors.As(err, &input) {
		t.Errorf("texts without a known label give %v", err)
	}
}
