package forecast

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/tensor"
)

// A probe is a loss of the test's windows whose gradient reaches the encoder;
// an autoregressive network's asks for the last step alone.
func TestProbe(t *testing.T) {
	panel := hourly(2, 500)
	for _, head := range []string{"direct", "autoregressive"} {
		cfg := small()
		cfg.Head, cfg.Epochs, cfg.Skip = head, 1, "none"
		m, _, err := Train(context.Background(), &Data{Panel: panel}, cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		loss, err := m.Probe(t.Context(), &Data{Panel: panel}, 9)
		if err != nil {
			t.Fatal(err)
		}
		tape := tensor.NewTape(tensor.CPU(), tensor.Train)
		tape.Trace()
		l := loss(tape)
		if !(l.Item() > 0) {
			t.Errorf("%s: loss %v", head, l.Item())
		}
		l.Backward()
		r := tape.Traces()[0]
		if !strings.HasPrefix(r.Name, "encoder.") || r.B > 9 || r.B < 5 {
			t.Errorf("%s: %s with %d rows", head, r.Name, r.B)
		}
		dh, dc := r.Grads()
		size := r.B * r.H
		if norm(dh[(r.T-2)*size:(r.T-1)*size]) == 0 {
			t.Errorf("%s: no gradient comes to the encoder", head)
		}
		// The loss of the last step alone leaves nothing for the cell's future there;
		// of the direct head the decoder is that future.
		if last := norm(dc[(r.T-1)*size:]); (last == 0) != (head == "autoregressive") {
			t.Errorf("%s: gradient %v of c at the last step", head, last)
		}
		var input *data.InputError
		if _, err := m.Probe(t.Context(), &Data{Panel: hourly(1, 20)}, 9); !errors.As(err, &input) {
			t.Errorf("%s: too short a table gives %v", head, err)
		}
	}
}

func norm(v []float32) (sum float64) {
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	return sum
}
