package quantize

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/task/forecast"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// forecaster trains a small model and returns its directory and its data.
func forecaster(t *testing.T) (dir string, files *forecast.Files) {
	t.Helper()
	dir = t.TempDir()
	r := rand.New(rand.NewPCG(1, 1))
	table, level := strings.Builder{}, 0.0
	table.WriteString("y,x\n")
	for i := range 1500 {
		x := math.Sin(float64(i) / 3)
		level = 0.8*level + x*x + 0.1*r.NormFloat64()
		fmt.Fprintf(&table, "%.4f,%.4f\n", level+math.Cos(float64(i)/11), x)
	}
	files = &forecast.Files{Data: filepath.Join(t.TempDir(), "table.csv")}
	if err := os.WriteFile(files.Data, []byte(table.String()), 0o666); err != nil {
		t.Fatal(err)
	}
	cfg := forecast.Defaults()
	cfg.Target, cfg.Past = []string{"y"}, forecast.Past{"x"}
	cfg.Window, cfg.Horizon, cfg.Hidden, cfg.Layers, cfg.Epochs, cfg.Batch, cfg.Skip = 24, 6, 48, 1, 3, 32, "none"
	d, err := forecast.Task.Read(t.Context(), files, &cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := forecast.Task.Train(t.Context(), d, &cfg, &train.Run{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	return dir, files
}

func opened(t *testing.T, dir string) *task.Trained {
	t.Helper()
	d, err := model.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := forecast.Task.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A trained model in 4 bits keeps what is asked for: with feedback more than by plain rounding, and where that is not
// enough some matrices rest in more bits. Saved and opened it gives the same forecasts.
func TestFourBits(t *testing.T) {
	dir, files := forecaster(t)
	f := opened(t, dir)
	d, err := f.Read(t.Context(), files, "")
	if err != nil {
		t.Fatal(err)
	}
	calibration, rows := &Rows{d, task.Validation}, &Rows{d, task.Test}
	run := func(least float64) (*task.Trained, *Report) {
		m := opened(t, dir)
		o := DefaultOptions()
		o.Precision, o.MinAccuracy = "int4", least
		report, err := Run(t.Context(), f, m, calibration, rows, nil, o, func(string) {})
		if err != nil {
			t.Fatal(err)
		}
		return m, report
	}

	m, report := run(0.5)
	kinds := map[string]int{}
	for _, one := range report.Matrices {
		kinds[one.Precision]++
		want := "int4"
		if one.Shape[0]*one.Shape[1] < fewWeights {
			want = "int8"
		}
		if one.Precision != want || m.Slab().Lookup(one.Name).Rest().String() != want || (one.Why == "") != (want == "int4") {
			t.Errorf("%+v rests in %v, want %s", one, m.Slab().Lookup(one.Name).Rest(), want)
		}
	}
	if kinds["int4"] == 0 || report.Plans != 1 || report.Size.Share > 0.25 {
		t.Errorf("%v in %d plans, %g of the bytes", kinds, report.Plans, report.Size.Share)
	}
	q, err := m.Tally(t.Context(), d, task.Test, nil)
	if err != nil {
		t.Fatal(err)
	}
	saved := t.TempDir()
	if err := m.Save(saved); err != nil {
		t.Fatal(err)
	}
	again, err := opened(t, saved).Tally(t.Context(), d, task.Test, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again.Value() != q.Value() || q.Value() != report.Accuracy.Quantized {
		t.Errorf("error %g, in the report %g, opened again %g", q.Value(), report.Accuracy.Quantized, again.Value())
	}

	plain := opened(t, dir)
	n := networkOf(plain)
	for i, one := range n.matrices {
		for _, p := range one.params {
			p.SetRest(map[string]tensor.Precision{"int4": tensor.Int4, "int8": tensor.Int8}[report.Matrices[i].Precision])
		}
	}
	full, err := f.Tally(t.Context(), d, task.Test, nil)
	if err != nil {
		t.Fatal(err)
	}
	changed := func(m *task.Trained) (sum float64) {
		tally, err := m.Tally(t.Context(), d, task.Test, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, row := range tally.Rows {
			sum += math.Abs(row[0]-full.Rows[i][0]) / full.Rows[i][1] / float64(len(full.Rows))
		}
		return sum
	}
	with, without := changed(m), changed(plain)
	t.Logf("the error of a window, %g in the mean, changes by %g, and by %g with plain rounding", full.Value(), with, without)
	if with > 0.6*without {
		t.Errorf("feedback changes the error of a window by %g, plain rounding by %g", with, without)
	}

	o := DefaultOptions()
	o.MinAccuracy = 0.5
	if r, err := Run(t.Context(), f, opened(t, dir), calibration, nil, nil, o, func(string) {}); err != nil || r.Accuracy != nil || r.Plans != 1 {
		t.Errorf("without rows for the verdict: %+v, %v", r, err)
	}

	_, strict := run(0.9999)
	more := 0
	for i, one := range strict.Matrices {
		if one.Precision != report.Matrices[i].Precision {
			more++
			if one.Why == "" || one.Cost == nil {
				t.Errorf("%s rests in %s, why %q", one.Name, one.Precision, one.Why)
			}
		}
	}
	if more == 0 || strict.Plans < 2 || strict.Accuracy.Low < 0.9999 && strict.Verdict != Refused {
		t.Errorf("%d matrices rest in more bits after %d plans; kept at least %g, %s", more, strict.Plans, strict.Accuracy.Low, strict.Verdict)
	}

	var input *data.InputError
	o.Precision = "int4"
	if _, err := Run(t.Context(), f, opened(t, dir), nil, rows, nil, o, func(string) {}); !errors.As(err, &input) || !strings.Contains(err.Error(), "--calibrate") {
		t.Errorf("without calibration rows: %v", err)
	}
}

// What a precision cannot hold stays in float32, and a report of it can be written.
func TestBeyond(t *testing.T) {
	dir, _ := forecaster(t)
	for precision, v := range map[string]float32{"int8": math.MaxFloat32, "bf16": math.MaxFloat32, "fp16": 1e5} {
		f, m := opened(t, dir), opened(t, dir)
		for _, one := range []*task.Trained{f, m} {
			p := one.Slab().Lookup("head.weight")
			w := p.Read()
			w[0] = v
			p.Write(w)
		}
		o := DefaultOptions()
		o.Precision = precision
		r, err := Run(t.Context(), f, m, nil, nil, nil, o, func(string) {})
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range r.Matrices {
			if (one.Precision == "f32") != (one.Name == "head.weight") || (one.Why != "") != (one.Name == "head.weight") {
				t.Errorf("%s: %+v", precision, one)
			}
		}
		if _, err := json.Marshal(r); err != nil {
			t.Errorf("%s: %v", precision, err)
		}
	}
}
