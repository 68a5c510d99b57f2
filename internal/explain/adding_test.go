package explain

import (
	"context"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The classical picture in small: the RNN's gradient vanishes, or explodes with
// a larger radius; the LSTM's memory follows its bias; who has learnt the problem
// carries the error back.
func TestAddingStudy(t *testing.T) {
	s, err := Adding(context.Background(), &AddingOptions{Length: 40, Hidden: 24, Steps: 400})
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]*Layer{}
	for _, f := range s.Untrained {
		by[f.Name] = f.Layers[0]
	}
	if l := by["RNN"]; !(l.Left < 1e-6 && l.Rate < 0.8) {
		t.Errorf("the RNN keeps %v of the gradient", l.Left)
	}
	if l := by["RNN, radius 2"]; !(l.Left > 100 && l.Rate > 1.1) {
		t.Errorf("with a radius of 2 %v of the gradient is left", l.Left)
	}
	for name, want := range map[string]float64{"LSTM, bias 0": 2, "LSTM, bias 1": 1 + math.E, "LSTM, bias 3": 1 + math.Exp(3)} {
		if got := by[name].Memory.Mean; math.Abs(got-want) > 0.1*want {
			t.Errorf("%s: memory %v, want about %v", name, got, want)
		}
	}
	if !(by["LSTM, bias 3"].Left > 0.01 && by["LSTM, bias 3"].Left > 100*by["LSTM, bias 1"].Left && by["LSTM, bias 1"].Left > 100*by["RNN"].Left) {
		t.Errorf("left of the gradient: RNN %v, LSTM %v and %v", by["RNN"].Left, by["LSTM, bias 1"].Left, by["LSTM, bias 3"].Left)
	}
	for i, o := range s.Outcomes {
		l := s.Trained[i].Layers[0]
		if carries := o.Name != "RNN"; carries != (l.Left > 0.01) || o.Solved && !carries || o.Name == "GRU" && !o.Solved {
			t.Errorf("%+v, left of the gradient %v", o, l.Left)
		}
	}
	advice := strings.Join(s.Advice, "\n")
	for _, want := range []string{"In a plain RNN the gradient vanishes", "explodes instead", "changes the mean memory 1/(1-f) from 2", "the GRU has solved it", "the RNN has not solved it"} {
		if !strings.Contains(advice, want) {
			t.Errorf("want %q in the advice %q", want, advice)
		}
	}
	dir := filepath.Join(t.TempDir(), "new", "pictures")
	if err := s.Write(dir, "test"); err != nil {
		t.Fatal(err)
	}
	wantPage(t, dir, []string{"before.png", "carousel.png", "after.png", "gates.png", "memory.png"}, s.Advice[0], "LSTM, bias 3", "After training")
	flow := filepath.Join(t.TempDir(), "flow")
	if err := s.Trained[2].Write(flow, "test"); err != nil {
		t.Fatal(err)
	}
	wantPage(t, flow, []string{"gradients.png", "gates_1.png", "memory.png"}, "rnn, layer 1", "What is measured")
}

// wantPage wants pictures of a decent size, and a page with some words.
func wantPage(t *testing.T, dir string, pictures []string, words ...string) {
	t.Helper()
	for _, name := range pictures {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		c, err := png.DecodeConfig(f)
		if f.Close(); err != nil || c.Width < 800 || c.Height < 300 {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	page, err := os.ReadFile(filepath.Join(dir, PageFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range words {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Contains(string(page), "no data") {
		t.Error("a plot of the page is empty")
	}
}

func TestAddingCanBeCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Adding(ctx, &AddingOptions{Length: 20, Hidden: 4, Steps: 10}); err != context.Canceled {
		t.Errorf("got %v", err)
	}
}
