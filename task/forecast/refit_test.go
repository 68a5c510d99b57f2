package forecast

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
	"github.com/carousel-ml/carousel/train/traintest"
)

// weights returns a copy of a model's parameters.
func weights(m *Model) (all []float32) {
	for _, p := range m.slab.Params {
		all = append(all, p.Read()...)
	}
	return all
}

// learning returns settings of which the network has a part in the forecast.
func learning() Config {
	cfg := small()
	cfg.Skip, cfg.EMA, cfg.RefitSteps = "none", 0.9, 0.3
	return cfg
}

// The networks of the three stages: that of training is the one without a refit; the
// scored one has nothing of the rows of the test, and the one in use has. A directory
// keeps all of them.
func TestRefitOfNetworks(t *testing.T) {
	panel := hourly(1, 600)
	fit := func(refit string) *Model {
		cfg := learning()
		cfg.Refit = refit
		m, _, err := Train(t.Context(), &Data{Panel: panel}, cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	none, m := fit(refitNone), fit(refitAll)
	if !slices.Equal(weights(none), weights(m.at(stageTrained))) {
		t.Error("the networks of training are not those without a refit")
	}
	if slices.Equal(weights(m.at(stageTrained)), weights(m.at(stageScored))) || slices.Equal(weights(m.at(stageScored)), weights(m)) {
		t.Error("stages have the same networks")
	}
	if half := fit(refitValidation); !slices.Equal(weights(half), weights(m.at(stageScored))) {
		t.Error("refitted to the validation part, the networks in use are not those scored")
	}
	dir := t.TempDir()
	if err := m.Save(dir); err != nil {
		t.Fatal(err)
	}
	opened, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for s := range stages {
		if !slices.Equal(weights(m.at(s)), weights(opened.at(s))) {
			t.Errorf("stage %s: the weights changed on the way through a directory", stageNames[s])
		}
	}
	y := panel.Series[0].Values[0]
	d, _ := m.dataset(panel, false)
	for row := d.frames[0].part[testPart].lo; row < len(y); row++ {
		y[row] += 100
	}
	other := fit(refitAll)
	if !slices.Equal(weights(m.at(stageScored)), weights(other.at(stageScored))) || slices.Equal(weights(m), weights(other)) {
		t.Error("the rows of the test are in the scored networks, or not in those in use")
	}
}

// A network that is scaled beside its linear path is trained further at its full size,
// and scaled in the same way.
func TestRefitKeepsTheGain(t *testing.T) {
	cfg := small()
	cfg.RefitSteps = 1
	m, d, err := prepare(t.Context(), &Data{Panel: hourly(1, 600)}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.fit(t.Context(), d, &train.Run{}); err != nil {
		t.Fatal(err)
	}
	full := weights(m)
	if _, err := m.settleGain(t.Context(), d, d.validationWindows()); err != nil {
		t.Fatal(err)
	}
	m.gain = 0.5
	list := d.windows(trainPart, 1)
	same, err := m.refitted(t.Context(), d, d, list, stageScored, 5, &train.Run{}) // nothing new
	if err != nil {
		t.Fatal(err)
	}
	head := m.net.Head.Weight.Read()
	if !slices.Equal(head, same.net.Head.Weight.Read()) {
		t.Error("without new rows the network changed")
	}
	m.net.scalePart(m.trained[0], 1, m.ridge)
	for i, v := range weights(m) {
		if math.Abs(float64(v-full[i])) > 1e-6 {
			t.Fatalf("weight %d at full size is %v, was %v", i, v, full[i])
		}
	}
	m.net.scalePart(m.trained[0], 0.5, m.ridge)
	more, err := m.refitted(t.Context(), d, d, d.known(1), stageScored, 5, &train.Run{})
	if err != nil {
		t.Fatal(err)
	}
	moved, half := 0.0, 0.0
	for i, v := range more.net.Head.Weight.Read() {
		moved = math.Max(moved, math.Abs(float64(v-m.trained[0].weight[i]/2)))
		half = math.Max(half, math.Abs(float64(m.trained[0].weight[i])))
	}
	if moved == 0 || moved > half/2 {
		t.Errorf("the head at half its size moved by %v of at most %v", moved, half)
	}
}

// Cancelled while it is refitted, a model is that of training; a run that is resumed
// has the bits of one that was not interrupted.
func TestRefitInterrupted(t *testing.T) {
	panel, cfg := hourly(1, 600), learning()
	whole, _, err := Train(t.Context(), &Data{Panel: panel}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	asked := &stopAfter{Context: t.Context(), n: math.MaxInt64}
	if _, _, err := Train(asked, &Data{Panel: panel}, cfg, nil); err != nil {
		t.Fatal(err)
	}
	last := &stopAfter{Context: t.Context(), n: asked.asked.Load() - 1}
	m, result, err := Train(last, &Data{Panel: panel}, cfg, &train.Run{Dir: dir})
	if err != nil || !result.Interrupted || m.others[stageScored] != nil || !slices.Equal(weights(m), weights(whole.at(stageTrained))) {
		t.Fatalf("cancelled: %v, %+v", err, result)
	}
	if _, err := Open(dir); err != nil {
		t.Fatal(err)
	}
	m, result, err = Train(t.Context(), &Data{Panel: panel}, cfg, &train.Run{Dir: dir, Resume: true})
	if err != nil || result.Interrupted {
		t.Fatal(err, result)
	}
	for s := range stages {
		if !slices.Equal(weights(m.at(s)), weights(whole.at(s))) {
			t.Errorf("stage %s: resumed, the weights are others", stageNames[s])
		}
	}
}

// Ranks that train together have the bits of one process that accumulates their batches,
// at every stage.
func TestRefitOfRanks(t *testing.T) {
	panel, cfg := hourly(1, 600), learning()
	cfg.Accumulate = 2
	alone, _, err := Train(t.Context(), &Data{Panel: panel}, cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Accumulate = 1
	models, errs := make([]*Model, 2), make([]error, 2)
	var all sync.WaitGroup
	for rank, w := range traintest.Worlds(2) {
		all.Go(func() {
			models[rank], _, errs[rank] = Train(t.Context(), &Data{Panel: panel}, cfg, &train.Run{World: w})
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for rank, m := range models {
		for s := range stages {
			if !slices.Equal(weights(m.at(s)), weights(alone.at(s))) {
				t.Errorf("rank %d, stage %s: the weights are not those of one process", rank, stageNames[s])
			}
		}
	}
}

// A rank that is asked to stop, at whatever moment, ends the training on all ranks, with
// the same outcome, and none waits for ever.
func TestRanksCancelled(t *testing.T) {
	panel, cfg := hourly(1, 400), learning()
	cfg.Epochs = 1
	fit := func(n int64) (asked int64) {
		var interrupted [2]bool
		var errs [2]error
		var all sync.WaitGroup
		for rank, w := range traintest.Worlds(2) {
			ctx := &stopAfter{Context: t.Context(), n: math.MaxInt64}
			if rank == 1 {
				ctx.n = n
			}
			all.Go(func() {
				_, result, err := Train(ctx, &Data{Panel: panel}, cfg, &train.Run{World: w})
				interrupted[rank], errs[rank] = err == nil && result.Interrupted, err
				if rank == 1 {
					asked = ctx.asked.Load()
				}
			})
		}
		all.Wait()
		stopped := n < math.MaxInt64
		for rank, err := range errs {
			if stopped && !interrupted[rank] && !errors.Is(err, context.Canceled) || !stopped && (interrupted[rank] || err != nil) {
				t.Errorf("rank 1 stops after %d: rank %d: interrupted %v, %v", n, rank, interrupted[rank], err)
			}
		}
		if interrupted[0] != interrupted[1] {
			t.Errorf("rank 1 stops after %d: interrupted %v", n, interrupted)
		}
		return asked
	}
	const moments = 8
	asked := fit(math.MaxInt64)
	for i := range int64(moments) {
		fit(i * asked / moments)
	}
	fit(asked - 1)
}

// The forecast of members is the mean of those of each, quantiles level by level, and
// their gradients are those of each alone.
func TestMembers(t *testing.T) {
	panel := hourly(2, 500)
	for name, set := range map[string]func(*Config){
		"point":          func(*Config) {},
		"quantile":       func(c *Config) { c.Loss = "quantile" },
		"gaussian":       func(c *Config) { c.Loss, c.Transform = "gaussian", "log" },
		"autoregressive": func(c *Config) { c.Head, c.Loss = "autoregressive", "student-t" },
		"joint":          func(c *Config) { c.Channels, c.Target, c.Skip = "joint", []string{"a", "b"}, "ridge" },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := learning()
			cfg.Members, cfg.Epochs, cfg.Dropout = 3, 1, 0
			set(&cfg)
			dir := t.TempDir()
			m, _, err := Train(t.Context(), &Data{Panel: panel}, cfg, &train.Run{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			opened, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			d, err := m.dataset(panel, false)
			if err != nil {
				t.Fatal(err)
			}
			list := d.windows(testPart, 7)
			all, again := forecasts(t, m, d, list), forecasts(t, opened, d, list)
			if !slices.Equal(all, again) {
				t.Error("forecasts changed on the way through a directory")
			}
			m.shifts = nil // which are added to the mean
			all = forecasts(t, m, d, list)
			want := make([]float64, len(all))
			for _, n := range m.net.Members {
				one := *m
				alone := *n
				alone.Members = []*network{&alone}
				one.net = &alone
				for i, v := range forecasts(t, &one, d, list) {
					want[i] += v / 3
				}
			}
			for i, v := range all {
				if math.Abs(v-want[i]) > 1e-9*math.Max(1, math.Abs(v)) {
					t.Fatalf("value %d is %v, the mean of the members %v", i, v, want[i])
				}
			}
			b := &batch{}
			d.load(b, list[:5], true)
			tape := tensor.NewTape(tensor.CPU(), tensor.Train)
			m.loss(tape, b).Backward()
			got := gradients(m.slab)
			m.slab.ZeroGrad()
			for _, n := range m.net.Members {
				tape.Reset()
				n.loss(tape, b).Backward()
			}
			for i, g := range gradients(m.slab) {
				if math.Abs(float64(g/3-got[i])) > 1e-6*(1+math.Abs(float64(g))) {
					t.Fatalf("gradient %d is %v, of the member alone %v", i, got[i], g)
				}
			}
			m.slab.ZeroGrad()
		})
	}
}

func gradients(s *tensor.Slab) []float32 {
	all := make([]float32, s.Grads().N)
	s.Device().Backend().Download(all, s.Grads())
	return all
}

// forecasts returns points and quantiles of windows.
func forecasts(t *testing.T, m *Model, d *dataset, list []window) (all []float64) {
	t.Helper()
	err := m.forecastAll(t.Context(), d, list, []float64{0.1, 0.5, 0.9}, func(_ window, _ int, s *steps) {
		all = append(all, s.point...)
		for _, q := range s.quantiles {
			all = append(all, q...)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// The graph of members is their mean; of distributions and of states it is refused.
func TestExportMembers(t *testing.T) {
	for loss, head := range map[string]string{"mae": "direct", "quantile": "direct", "gaussian": "direct", "mse": "autoregressive"} {
		cfg := small()
		cfg.Members, cfg.Loss, cfg.Head = 2, loss, head
		m, _, err := prepare(t.Context(), &Data{Panel: hourly(1, 400)}, cfg, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range m.net.Members {
			w := make([]float32, n.Head.Weight.Len())
			for i := range w {
				w[i] = float32(i%7-3) / 4
			}
			n.Head.Weight.Write(w)
		}
		p, err := m.ExportONNX(t.Context(), filepath.Join(t.TempDir(), "m.onnx"))
		if refused := loss == "gaussian" || head != "direct"; (err != nil) != refused {
			t.Errorf("%s %s: %v", loss, head, err)
		} else if err == nil {
			if p.Values == 0 || p.MaxDiff > 2e-5 || p.MaxDiffRuntime > 2e-5 {
				t.Error(p)
			}
		}
	}
}

// A directory of an older version has one network, the same at all stages.
func TestOpenOneNetwork(t *testing.T) {
	dir := t.TempDir()
	m, _, err := Train(t.Context(), &Data{Panel: hourly(1, 400)}, learning(), &train.Run{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	d, err := model.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := json.Unmarshal(d.Config, &config); err != nil {
		t.Fatal(err)
	}
	delete(config["config"].(map[string]any), "members")
	older := t.TempDir()
	if err := model.Save(older, Name, config, d.Copy(model.WeightsFile), d.Copy(linearFile)); err != nil {
		t.Fatal(err)
	}
	opened, err := Open(older)
	if err != nil {
		t.Fatal(err)
	}
	if n := opened.Config().Members; n != 1 || !slices.Equal(weights(m), weights(opened)) || !slices.Equal(weights(m), weights(opened.at(stageScored))) {
		t.Errorf("%d members, or other weights", n)
	}
}

// A file of a stage that is damaged is an error that names it.
func TestStageOfAnotherModel(t *testing.T) {
	dir := t.TempDir()
	m, _, err := Train(t.Context(), &Data{Panel: hourly(1, 400)}, learning(), nil)
	if err != nil {
		t.Fatal(err)
	}
	m.others[stageScored].slab.Params[0].Name = "other"
	if err := m.Save(dir); err != nil {
		t.Fatal(err)
	}
	var file *model.FileError
	if _, err := Open(dir); !errors.As(err, &file) || filepath.Base(file.File) != "scored.safetensors" {
		t.Errorf("got %v", err)
	}
}
