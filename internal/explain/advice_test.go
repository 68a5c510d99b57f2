package explain

import (
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/cell"
)

// What a gate does is that of its cell: the gate z of a GRU keeps the state, that of a
// minGRU replaces it, and that of an sLSTM is the candidate.
func TestGateTitles(t *testing.T) {
	for kind, want := range map[cell.Kind]string{cell.GRU: "z, update gate (keeps)", cell.GRUBefore: "z, update gate (keeps)",
		cell.MinGRU: "z, update gate (replaces)", cell.SLSTM: "z, candidate"} {
		if got := gateTitle(kind.Spec(), "z"); got != want {
			t.Errorf("%s: got %q, want %q", kind.Spec().Name, got, want)
		}
	}
	if got := gateTitle(cell.LSTM.Spec(), "g"); got != "g, candidate" {
		t.Errorf("got %q", got)
	}
}

// Each finding has its sentence, and a healthy network none of them.
func TestAdvice(t *testing.T) {
	healthy := func() *Layer {
		return &Layer{Name: "rnn, layer 1", Cell: "LSTM", Units: 8, Steps: 50, Told: 50, Left: 0.5, Reach: 50, Rate: 0.99, Memory: &Memory{Mean: 30, Median: 25, Most: 90}}
	}
	share := func(v float64) *float64 { return &v }
	for name, c := range map[string]struct {
		change func(f *Flow, l *Layer)
		want   []string
	}{
		"healthy":   {func(*Flow, *Layer) {}, []string{"Nothing unusual"}},
		"vanishing": {func(_ *Flow, l *Layer) { l.Cell, l.Memory, l.Left, l.Rate, l.Reach = "RNN", nil, 1e-9, 0.65, 17 }, []string{"shrinks by a factor of 0.65 per step, and 17 steps back", "Use an LSTM or a GRU"}},
		"exploding": {func(_ *Flow, l *Layer) { l.Left, l.Rate = 1e5, 1.27 }, []string{"explodes, by a factor of 1.3 per step", "clip its norm"}},
		"forgetful LSTM": {func(_ *Flow, l *Layer) { l.Memory = &Memory{Mean: 3.8, Median: 3.7, Most: 6} },
			[]string{"half of the units forget within 3.7 steps", "raise the forget bias (0 -> 1 -> 3 makes the mean memory 1/(1-f) 2 -> 3.7 -> 21 steps)", "chrono 50"}},
		"forgetful GRU":     {func(_ *Flow, l *Layer) { l.kind, l.Memory = cell.GRU, &Memory{Mean: 2, Median: 2, Most: 3} }, []string{"initialise with memories of all lengths (chrono 50)"}},
		"forgetful minLSTM": {func(_ *Flow, l *Layer) { l.kind, l.Memory = cell.MinLSTM, &Memory{Mean: 2, Median: 2, Most: 3} }, []string{"and sequences have 50."}},
		"fading":            {func(_ *Flow, l *Layer) { l.Left, l.Rate, l.Reach = 1e-6, 0.76, 25 }, []string{"less than a thousandth is left 25 steps back, of 50"}},
		"saturated":         {func(_ *Flow, l *Layer) { l.Gates = []Gate{{Name: "g", Signed: true, Low: 0.3, High: 0.4}} }, []string{"70 % of g are beyond ±0.9"}},
		"shut":              {func(_ *Flow, l *Layer) { l.Gates = []Gate{{Name: "i", Low: 0.95}, {Name: "o", Low: 0.99}} }, []string{"input gates are closed (95 %", "output gates are closed (99 %"}},
		"often clipped":     {func(f *Flow, _ *Layer) { f.Clip, f.Clipped = 1, share(0.6) }, []string{"60 % of the training steps were clipped at a norm of 1"}},
		"clipped now":       {func(f *Flow, _ *Layer) { f.Clip, f.GradNorm, f.Clipped = 1, 4, share(0.1) }, []string{"norm of 4 and would be clipped at 1"}},
		"never clipped":     {func(f *Flow, _ *Layer) { f.GradNorm = 1e4 }, []string{"nothing limits it"}},
		"nothing at all":    {func(_ *Flow, l *Layer) { l.Reach, l.Left, l.Rate = 0, 0, 0 }, []string{"No recurrent layer has a gradient"}},
		"one of two": {func(f *Flow, _ *Layer) {
			f.Layers = append(f.Layers, &Layer{Name: "rnn, layer 1, reverse", Cell: "LSTM"})
		},
			[]string{"There is no gradient in rnn, layer 1, reverse"}},
	} {
		l := healthy()
		f := &Flow{Layers: []*Layer{l}}
		c.change(f, l)
		text := strings.Join(advise(f), "\n")
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: want %q in %q", name, want, text)
			}
		}
		if n := len(advise(f)); n > 1 && name != "shut" {
			t.Errorf("%s: %d pieces of advice: %q", name, n, text)
		}
	}
}
