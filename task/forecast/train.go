package forecast

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// Train trains a model on the training rows of a table, divided according to
// Config.Split. The epoch and the share of the network beside its linear path are
// chosen on the validation rows; the transformation of the targets, the linear path
// and the shares of simple methods by cross validation on both parts. Intervals are
// computed from errors that the fit did not see. Linear path and networks are fitted to
// more rows at the end, as Config.Refit says: forecasts have all rows in it by
// default, and scores those of training and validation.
//
// Invalid settings, and a table that does not fit them, are a *data.InputError;
// other errors are those of [train.Fit] and [Model.Save]. If ctx is cancelled
// while the data are prepared, its error is returned; later, the result is marked
// Interrupted, and Dir contains a checkpoint to resume from and the model with
// the best weights so far, which is also returned.
func Train(ctx context.Context, d *Data, cfg Config, run *train.Run) (*Model, *train.Result, error) {
	return task.Fit("forecast: Train", d, &cfg, run, func(o *train.Run) (*Model, *train.Result, error) {
		task.NeedData(d.Panel, "forecast: Train")
		m, set, err := prepare(ctx, d, cfg, o.Device)
		if err != nil {
			return nil, nil, err
		}
		result, err := m.fit(ctx, set, o)
		if err != nil || !result.Trained() {
			return m, result, err
		}
		ctx := task.Finishing(ctx, o, result)
		if err := m.calibrate(ctx, set, set.validationWindows()); err != nil {
			return nil, nil, err
		}
		return m, result, m.refitAfter(ctx, set, o, result)
	})
}

// refitAfter refits a model that was trained. After an interruption its networks remain
// as they are; one that comes now leaves the model as it was trained, and a run that is
// resumed refits it.
func (m *Model) refitAfter(ctx context.Context, d *dataset, o *train.Run, result *train.Result) error {
	steps := result.Steps
	if result.Best != nil {
		steps = result.Best.Step
	}
	if result.Interrupted {
		steps = 0
	}
	err := m.refit(ctx, d, steps, o)
	if err != nil && ctx.Err() != nil {
		result.Interrupted, result.Stopped = true, train.StopInterrupted
		return nil
	}
	return err
}

// mostValidation is the largest number of windows that training is validated on.
const mostValidation = 4000

// validationWindows returns the windows of the validation part, evenly thinned to
// mostValidation.
func (d *dataset) validationWindows() []window {
	list, _ := d.toScore(validationPart)
	return thin(list, (len(list)+mostValidation-1)/mostValidation)
}

// prepare settles the configuration on the data and makes the untrained model.
func prepare(ctx context.Context, from *Data, cfg Config, on *tensor.Device) (*Model, *dataset, error) {
	panel := from.Panel
	frames, empty, err := rawFrames(panel, &cfg)
	if err != nil {
		return nil, nil, err
	}
	if cfg.NoTargetHistory {
		if frames, empty, err = withTarget(&cfg, frames); err != nil {
			return nil, nil, err
		}
	}
	cfg.settleDecimal(panel)
	cfg.settleHistory()
	kept, notes, err := settle(&cfg, panel.Freq, frames, empty)
	if err != nil {
		return nil, nil, err
	}
	if err := cfg.checkFloor(kept); err != nil {
		return nil, nil, err
	}
	d, note, err := layTransformed(ctx, from, cfg, kept)
	if err != nil {
		return nil, nil, err
	}
	// The choices of the linear path were made on the rows of validation too; the
	// network is trained beside the path that is fitted to the rows of training.
	line, err := d.chosen.refitted(ctx, d, d.windows(trainPart, d.cfg.WindowStride))
	if err != nil {
		return nil, nil, err
	}
	note = append(note, d.settleSkip(line)...)
	m, err := newModel(*d.cfg, d.schema, on)
	if err != nil {
		return nil, nil, err
	}
	d.cfg = &m.cfg
	m.ridge, m.learnt = line, map[string]*learnt{}
	for _, f := range kept {
		m.learnt[f.id] = f.learn()
	}
	for _, n := range m.net.Members {
		if n.Skip == nil {
			continue
		}
		n.Head.Bias.Write(make([]float32, n.Head.Bias.Len()))
		if m.cfg.Skip == "ridge" {
			n.Skip.startAt(m.ridge)
		}
	}
	if n := m.cfg.Members; n > 1 {
		note = append(note, fmt.Sprintf("the network's forecast is the mean of %d networks, trained from different initial weights", n))
	}
	m.notes = slices.Concat(notes, note, mixed(&m.cfg, frames), constants(&m.cfg, d.schema, kept))
	return m, d, nil
}

// The logarithm is tried for targets whose values differ by mostFlat or more, and
// taken if it makes the error less by worthTransform.
const (
	mostFlat       = 2.5
	worthTransform = 0.02
)

// layTransformed is lay with the transformation of the targets that leaves the least
// error, if the settings leave it to the data. Without target history the linear path,
// by which that is told, has little to say.
func layTransformed(ctx context.Context, from *Data, cfg Config, frames []*frame) (*dataset, []string, error) {
	log := cfg.Transform == "log"
	var notes []string
	if cfg.Transform == "auto" && !cfg.NoTargetHistory && cfg.Loss != "negative-binomial" && wideRange(frames) {
		var errs [2]float64
		for i, log := range []bool{false, true} {
			d, err := lay(ctx, from, cfg, frames, log, true)
			if err != nil {
				return nil, nil, err
			}
			errs[i] = d.lineError()
		}
		if log = errs[1] < errs[0]*(1-worthTransform); log {
			notes = []string{fmt.Sprintf("targets are transformed by their logarithm, which makes the linear path's error for windows left out less by %s", report.Percent(1-errs[1]/errs[0]))}
		}
	}
	d, err := lay(ctx, from, cfg, frames, log, false)
	return d, notes, err
}

// wideRange reports whether all targets are positive in the known rows, and some
// differ by the factor mostFlat.
func wideRange(frames []*frame) bool {
	wide := false
	for _, f := range frames {
		for _, column := range f.raw {
			low, high := math.Inf(1), math.Inf(-1)
			for _, v := range column[:max(f.part[trainPart].hi, f.part[validationPart].hi)] {
				if !math.IsNaN(v) {
					low, high = math.Min(low, v), math.Max(high, v)
				}
			}
			if low <= 0 {
				return false
			}
			wide = wide || high >= mostFlat*low
		}
	}
	return wide
}

// lineError returns the mean absolute error of the linear path for windows left out,
// in standard deviations of the training rows.
func (d *dataset) lineError() float64 {
	var sum mean
	for k, forecast := range d.out.forecast {
		for i, w := range d.out.list {
			f, origin := d.frames[w.frame], int(w.origin)
			u := units{d.centre(f, k, origin), f.fit[k].Scaler}
			for h := range min(d.horizon, f.end-origin) {
				if y := f.raw[k][origin+h]; !math.IsNaN(y) && f.fit[k].Deviation > 0 {
					sum.add(math.Abs(u.out(forecast.At(i, h))-y) / f.fit[k].Deviation)
				}
			}
		}
	}
	return sum.value()
}

// lay fits scalers and the linear path, and settles what is left of the settings. For
// quick see fitRidge.
func lay(ctx context.Context, from *Data, cfg Config, frames []*frame, log, quick bool) (*dataset, error) {
	s := fitSchema(from.Panel, &cfg, frames, log)
	for _, f := range frames {
		if err := f.prepare(s, &cfg); err != nil {
			return nil, err
		}
	}
	cfg.Lags = slices.Clone(s.Lags)
	if len(cfg.Lags) == 0 {
		cfg.Lags = []int{0}
	}
	d := &dataset{schema: s, cfg: &cfg, frames: frames, shape: newShape(s, &cfg)}
	settleStride(&cfg, len(d.windows(trainPart, 1)), d.targets/d.channels, d.seasons())
	train := d.windows(trainPart, cfg.WindowStride)
	if len(train) == 0 {
		return nil, data.Errorf("the training rows hold no window of %s and horizon %d with a target; give a smaller window or more rows", report.Plural(d.reach, "row"), cfg.Horizon)
	}
	settleTraining(&cfg, len(train))
	d.fitUnit(train)
	var err error
	d.chosen, d.out, err = d.linearPath(ctx, from, log, quick)
	return d, err
}

// linearPath is fitRidge on the rows of training and validation, whose result is kept for other trainings on the same
// data: it does not depend on the networks.
func (d *dataset) linearPath(ctx context.Context, from *Data, log, quick bool) (*ridge, *unseen, error) {
	type path struct {
		chosen *ridge
		out    *unseen
	}
	c := *d.cfg
	c.RNNConfig, c.Settings, c.Members, c.Dropout, c.Batch, c.SkipLR, c.RefitSteps = task.RNNConfig{}, train.Settings{}, 0, 0, 0, 0, 0
	key, err := json.Marshal(c)
	if err != nil {
		return nil, nil, err
	}
	p, err := task.Once(ctx, &from.lines, fmt.Sprintf("%p %s %v %v", from.Panel, key, log, quick), func() (p path, err error) {
		p.chosen, p.out, err = fitRidge(ctx, d, d.known(d.cfg.WindowStride), quick)
		return p, err
	})
	if err != nil {
		return nil, nil, err
	}
	out := *p.out
	out.errors = nil // of the mixture, which each training chooses
	return p.chosen, &out, nil
}

// known returns the windows in the rows of training and validation together.
func (d *dataset) known(stride int) []window {
	return d.divided(func(f *frame) parts {
		return parts{trainPart: {f.part[trainPart].lo, max(f.part[trainPart].hi, f.part[validationPart].hi)}}
	}).windows(trainPart, stride)
}

// constants returns a note on the series that are constant in training.
func constants(cfg *Config, s *schema, frames []*frame) (notes []string) {
	var names []string
	for _, f := range frames {
		for k, fit := range s.Series[f.id] {
			if fit.Deviation == 0 {
				names = append(names, strings.TrimSpace(f.id+" "+cfg.targets()[k]))
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("constant in the training rows, so there is nothing to learn: %s", report.Listing(names))}
}

// fit runs the training loop.
func (m *Model) fit(ctx context.Context, d *dataset, o *train.Run) (*train.Result, error) {
	cfg := &m.cfg
	windows := d.windows(trainPart, cfg.WindowStride)
	valid := d.validationWindows()
	options := cfg.Settings.Options((len(windows)+cfg.Batch-1)/cfg.Batch, o)
	options.Batch, options.Clip, options.Fingerprint = cfg.Batch, m.clip(), m.fingerprint(d)
	options.About += "; " + d.about()
	job := m.job(d, windows)
	if len(valid) > 0 {
		job.Metric, job.Metrics = "mae", []string{"mae", "mse"}
		if cfg.Loss == "mse" || cfg.Loss == "gaussian" {
			job.Metric = "mse"
		}
		job.Validate = func(ctx context.Context, _ *tensor.Tape) (map[string]float64, error) {
			return m.validation(ctx, d, valid)
		}
	} else {
		options.Patience = 0
	}
	return train.Fit(ctx, job, options)
}

// job returns a training of the networks on windows.
func (m *Model) job(d *dataset, windows []window) *train.Job[batch] {
	return &train.Job[batch]{
		Slab:      m.slab,
		Optimizer: m.optimizer(),
		Samples:   len(windows),
		NewBatch:  func() *batch { return &batch{} },
		Load: func(b *batch, samples []int) {
			list := make([]window, len(samples))
			for i, s := range samples {
				list[i] = windows[s]
			}
			d.load(b, list, true)
		},
		Loss: m.loss,
	}
}

// loss returns the mean loss of the members, whose gradients do not touch each other:
// each is trained as if it were alone.
func (m *Model) loss(t *tensor.Tape, b *batch) *tensor.Tensor {
	sum := m.net.loss(t, b)
	if len(m.net.Members) == 1 {
		return sum
	}
	for _, n := range m.net.Members[1:] {
		sum = tensor.Add(sum, n.loss(t, b))
	}
	return tensor.MulScalar(sum, 1/float32(len(m.net.Members)))
}

// clip returns the bound on the norm of the gradient of loss, with members that are
// each clipped at about Config.Clip.
func (m *Model) clip() float32 {
	return float32(m.cfg.Clip / math.Sqrt(float64(len(m.net.Members))))
}

// optimizer returns AdamW with a separate learning rate for the linear path.
func (m *Model) optimizer() *optim.Optimizer {
	o := &optim.AdamWOptions{WeightDecay: float32(m.cfg.WeightDecay)}
	if m.net.Skip != nil {
		o.Groups = []optim.Group{{
			Match: func(name string) bool {
				return strings.HasPrefix("."+name, ".skip.") || strings.Contains(name, ".skip.")
			},
			LRScale: float32(m.cfg.SkipLR), Freeze: m.cfg.SkipLR == 0,
		}}
	}
	return optim.NewAdamW(m.slab, o)
}

// fingerprint returns a hash of the data and of the settings that change the
// arithmetic.
func (m *Model) fingerprint(d *dataset) train.Fingerprint {
	c := m.cfg
	c.Settings = c.Fixed()
	f := train.NewFingerprint(c)
	var columns []any
	for _, s := range d.frames {
		for _, group := range [][][]float64{s.given, s.rawPast, s.rawAhead} {
			for _, column := range group {
				columns = append(columns, column)
			}
		}
	}
	f.AddData("rows", columns...)
	return f
}
