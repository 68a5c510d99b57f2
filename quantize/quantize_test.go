package quantize

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// tally is a figure of random rows: shares of right answers, of which some are flipped.
func tally(rows int, right float64, flips int, seed uint64) (f, q *task.Tally) {
	r := rand.New(rand.NewPCG(seed, 1))
	f = &task.Tally{Name: "accuracy", Higher: true, Of: func(s []float64) float64 { return s[0] / s[1] }}
	q = &task.Tally{Name: "accuracy", Higher: true, Of: f.Of}
	for i := range rows {
		v := 0.0
		if r.Float64() < right {
			v = 1
		}
		f.Rows = append(f.Rows, []float64{v, 1})
		if i < flips {
			v = 1 - v
		}
		q.Rows = append(q.Rows, []float64{v, 1})
	}
	return f, q
}

// The interval of what is kept covers the truth about as often as it says: a model that errs
// independently on 2 % of the rows keeps, in the long run, a known share.
func TestIntervalCovers(t *testing.T) {
	const trials, rows, right, flip = 300, 400, 0.8, 0.02
	truth := (right*(1-flip) + (1-right)*flip) / right
	missed := 0
	for trial := range trials {
		r := rand.New(rand.NewPCG(uint64(trial), 2))
		f, q := tally(rows, right, 0, uint64(trial))
		for i := range q.Rows {
			if r.Float64() < flip {
				q.Rows[i] = []float64{1 - q.Rows[i][0], 1}
			}
		}
		if a := compare(f, q); truth < a.Low || truth > a.High {
			missed++
		}
	}
	if share := float64(missed) / trials; share < 0.02 || share > 0.10 {
		t.Errorf("the 95 %% interval misses the truth in %.1f %% of the trials", 100*share)
	}
}

func TestKept(t *testing.T) {
	higher, lower, rate := &task.Tally{Higher: true}, &task.Tally{}, &task.Tally{Rate: true}
	for _, c := range []struct {
		t          *task.Tally
		f, q, want float64
	}{
		{higher, 0.8, 0.76, 0.95}, {lower, 0.2, 0.25, 0.8}, {rate, 0.10, 0.19, 0.9}, {rate, 0, 0, 1},
		{higher, 0, 0, 1}, {lower, 0, 0.5, 0}, {higher, 0.5, 0, 0}, {lower, 0.5, 0.25, 2},
	} {
		if got := kept(c.t, c.f, c.q); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%+v: %g", c, got)
		}
	}
}

// The verdict and its reasons, by what was found.
func TestJudge(t *testing.T) {
	fast, slow := Times{Float32: 2, Quantized: 1, Ratio: 2, Best: 2}, Times{Float32: 1, Quantized: 2, Ratio: 0.5, Best: 0.6}
	kept := func(low float64) *Accuracy {
		return &Accuracy{Rows: 100, Separate: 100, Figure: "f1", Low: low, High: 1}
	}
	for name, c := range map[string]struct {
		r       Report
		rounded bool
		want    Verdict
		reason  string
	}{
		"good":         {Report{Accuracy: kept(0.99), Speed: Speed{Stream: fast, Batch: fast}}, true, Accepted, "accuracy: at least 99.0 %"},
		"unknown":      {Report{Speed: Speed{Stream: fast, Batch: fast}}, true, Unknown, "no --data was given"},
		"inaccurate":   {Report{Accuracy: kept(0.97), Speed: Speed{Stream: fast, Batch: fast}}, true, Refused, "accuracy: between 97.0 %"},
		"slow stream":  {Report{Accuracy: kept(1), Speed: Speed{Stream: slow, Batch: fast}}, true, Refused, "slower on this machine"},
		"slow batch":   {Report{Accuracy: kept(1), Speed: Speed{Stream: fast, Batch: slow}}, true, Refused, "slower on this machine"},
		"missed":       {Report{Accuracy: kept(1), Asked: Options{TargetSpeedup: 3}, Speed: Speed{Stream: fast, Batch: fast}}, true, Refused, "3 times was asked for"},
		"few rows":     {Report{Accuracy: &Accuracy{Rows: 19, Separate: 19, Low: 1, High: 1}, Speed: Speed{Stream: fast, Batch: fast}}, true, Unknown, "too few to tell"},
		"nothing left": {Report{Accuracy: kept(1), Speed: Speed{Stream: fast, Batch: fast}}, false, Refused, "every matrix stays in float32"},
	} {
		c.r.Asked.MinAccuracy = 0.98
		if c.r.judge(c.rounded); c.r.Verdict != c.want || len(c.r.Reasons) != 1 || !strings.Contains(c.r.Reasons[0], c.reason) {
			t.Errorf("%s: %s, %q", name, c.r.Verdict, c.r.Reasons)
		}
	}
}

func TestCompareSameRows(t *testing.T) {
	f, q := tally(500, 0.9, 0, 3)
	if a := compare(f, q); a.Kept != 1 || a.Low != 1 || a.High != 1 || a.Differ != 0 || a.Rows != 500 {
		t.Errorf("equal models: %+v", a)
	}
	f, q = tally(500, 0.9, 50, 3)
	a := compare(f, q)
	if len(a.Examples) != examples || a.Examples[0].Row != 1 || a.Examples[0].Float32+a.Examples[0].Quantized != 1 {
		t.Errorf("examples %+v", a.Examples)
	}
	if a.Differ != 50 || !(a.Low < a.Kept && a.Kept < a.High && a.High < 1) {
		t.Errorf("a tenth of the answers flipped: %+v", a)
	}
}

// Where float32 gets nothing right, or more wrong than there is, all is kept unless it gets worse; the share is a number, which JSON
// needs.
func TestKeptOfNothing(t *testing.T) {
	higher, rate := &task.Tally{Higher: true}, &task.Tally{Rate: true}
	for _, c := range []struct {
		t          *task.Tally
		f, q, want float64
	}{{higher, 0, 0.3, 1}, {rate, 1, 0.5, 1}, {rate, 1.2, 1.5, 0}, {rate, 1.2, 1.1, 1}, {rate, 1, 1.5, 0}, {&task.Tally{}, 0.3, 0, 1}} {
		if got := kept(c.t, c.f, c.q); got != c.want {
			t.Errorf("%+v: %g", c, got)
		}
	}
}

// A figure of few rows is no ground to accept a model, whatever the bootstrap says: windows of which all overlap are
// one row, and none of ten rows may differ although a tenth of all would.
func TestFewRows(t *testing.T) {
	for _, c := range []struct {
		rows, block, separate int
		want                  Verdict
	}{{10, 0, 10, Unknown}, {30, 24, 2, Unknown}, {400, 0, 400, Accepted}, {500, 24, 21, Accepted}} {
		f, q := tally(c.rows, 0.9, 0, 3)
		f.Block, q.Block = c.block, c.block
		r := &Report{Asked: *DefaultOptions(), Accuracy: compare(f, q), Speed: Speed{Stream: Times{2, 1, 2, 2}, Batch: Times{2, 1, 2, 2}}}
		if r.judge(true); r.Verdict != c.want || r.Accuracy.Separate != c.separate {
			t.Errorf("%+v: %s %v, %d separate", c, r.Verdict, r.Reasons, r.Accuracy.Separate)
		}
	}
}

// The times that a refusal for speed names agree with it.
func TestSlower(t *testing.T) {
	for _, c := range []struct {
		t    Times
		want bool
	}{{Times{1, 2, 0.5, 0.5}, true}, {Times{2, 1, 0.9, 0.9}, false}, {Times{1, 2, 1, 0.5}, false}, {Times{1, 2, 0.5, 1}, false}} {
		if c.t.slower() != c.want {
			t.Errorf("%+v: %v", c.t, !c.want)
		}
	}
}

// A matrix that two layers share is one matrix.
func TestSharedMatrix(t *testing.T) {
	table := nn.NewEmbedding(9, 4, nil)
	s := tensor.Pack(nil, struct {
		Table  *nn.Embedding
		Output *nn.Linear
	}{table, &nn.Linear{Weight: table.Weight}}, 1)
	if list := weights(s); len(list) != 1 {
		t.Errorf("%d matrices", len(list))
	}
}
