package trials

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
	"github.com/carousel-ml/carousel/tune"
)

// What is measured of a trained model, as an objective or for a constraint.
const (
	Latency = "latency" // ms that the network takes for one row of the data, alone on its share of the cores
	Size    = "size"    // bytes of the weights' file
)

// A Task is a task with its data and the settings that all trials share. Its runs are trainings,
// whose units are epochs.
type Task struct {
	Kind *task.Kind
	Base task.Config // with the number of epochs

	files      any
	on         *tensor.Device // nil: the CPU
	plan       train.Plan     // of a training with Base
	settled    task.Config    // as such a training settles Base by the data
	objectives []tune.Objective

	mu    sync.Mutex
	reads []*reading
}

// reading is the data as some settings of the group Data have them read.
type reading struct {
	key  string
	once func() (task.Data, error)
}

// mostReadings bounds the readings that are kept.
const mostReadings = 4

// NewTask reads the data of a task once for all trials, and finds out how long a training with the settings
// base is. objectives are names: none, or "", is the metric by which the training chooses its weights; others are those
// that its validation reports, [Latency] and [Size]. The values of metrics are those of the epoch that the training chooses.
// Trainings are on the device on, or on the CPU.
//
// Data without a validation part are a *data.InputError; other errors are those of [task.Kind.Read] and of
// a training.
func NewTask(ctx context.Context, k *task.Kind, files any, base task.Config, objectives []string, on ...*tensor.Device) (*Task, error) {
	t := &Task{Kind: k, Base: copyOf(k, base), files: files, on: cmp.Or(on...)}
	d, err := t.read(ctx, t.Base)
	if err != nil {
		return nil, err
	}
	begun, cancel := context.WithCancel(ctx)
	defer cancel()
	run := &train.Run{Device: t.on}
	run.OnStart = func(p train.Plan) error {
		t.plan = p
		cancel() // before the first step
		return nil
	}
	m, _, err := k.Train(begun, d, t.Base, run)
	if err != nil {
		return nil, err
	}
	t.settled = m.Settings()
	if t.plan.Metric == "" {
		return nil, &data.InputError{Problem: fmt.Sprintf("trials of %s are compared on the validation part, and the data have none", k.Name), Fix: "give validation data, or a share of the training data for it"}
	}
	if t.plan.Epochs > 0 {
		if err := assign(settings.List(t.Base), "epochs", strconv.Itoa(t.plan.Epochs)); err != nil {
			return nil, err
		}
	}
	if len(objectives) == 0 {
		objectives = []string{""}
	}
	for _, name := range objectives {
		o, err := t.objective(strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(t.objectives, func(p tune.Objective) bool { return p.Name == o.Name }) {
			return nil, &data.InputError{Problem: fmt.Sprintf("the objective %s is given twice", o.Name), Fix: "name each once"}
		}
		t.objectives = append(t.objectives, o)
	}
	if first := t.objectives[0].Name; first == Latency || first == Size {
		return nil, &data.InputError{Problem: fmt.Sprintf("the first objective is %s, for which the least network is the best", first), Fix: fmt.Sprintf("name a metric before it, such as %s,%s", strings.TrimPrefix(t.plan.Metric, "-"), first)}
	}
	return t, nil
}

// objective returns the objective of a name. Whether more of a metric is better is the task's to say.
func (t *Task) objective(name string) (tune.Objective, error) {
	var names []string
	for _, metric := range slices.Concat(t.plan.Metrics, []string{Latency, Size}) {
		bare, more := strings.CutPrefix(metric, "-")
		if name == bare || name == metric || name == "" && metric == t.plan.Metric {
			return tune.Objective{Name: bare, Maximize: more}, nil
		}
		names = append(names, bare)
	}
	return tune.Objective{}, &data.InputError{Problem: fmt.Sprintf("objective %q: expected one of %s", name, strings.Join(names, ", ")), Fix: "name one of these"}
}

// Name is the task and the settings that differ from its defaults.
func (t *Task) Name() string { return t.Kind.Name + "\n" + t.recipe(t.Base) }

// Data has a checksum of each part of the data, as the network reads them.
func (t *Task) Data() string {
	var list []string
	for _, part := range slices.Sorted(maps.Keys(t.plan.Fingerprint.Data)) {
		list = append(list, part+" "+t.plan.Fingerprint.Data[part])
	}
	if list != nil {
		return strings.Join(list, ", ")
	}
	h := sha256.New() // of a task without a fingerprint
	for _, s := range settings.List(t.files) {
		text, err := os.ReadFile(s.String())
		if err != nil {
			text = []byte(s.String())
		}
		fmt.Fprintf(h, "%s %d\n%s", s.Name, len(text), text)
	}
	return fmt.Sprintf("files %x", h.Sum(nil)[:12])
}

// Objectives are those that it was made with.
func (t *Task) Objectives() []tune.Objective { return t.objectives }

// Units is the number of epochs; 0 if they have no limit.
func (t *Task) Units() int { return t.plan.Epochs }

// Resumable is true: a training goes on from its checkpoint to the bit.
func (t *Task) Resumable() bool { return true }

// Measured are the latency, if it is an objective or has a bound, and a limit of time.
func (t *Task) Measured(s *tune.Space) (names []string) {
	if slices.Contains(t.measures(s.Constraints), Latency) {
		names = append(names, Latency)
	}
	if one := settings.Named(settings.List(t.Base), "max_time"); one != nil && !one.IsZero() {
		names = append(names, one.Name)
	}
	return names
}

// measures are the names of what is measured of each model.
func (t *Task) measures(constraints []*tune.Constraint) (names []string) {
	for _, o := range t.objectives {
		names = append(names, o.Name)
	}
	for _, c := range constraints {
		names = append(names, c.Measured())
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name != Latency && name != Size })
	slices.Sort(names)
	return slices.Compact(names)
}

func copyOf(k *task.Kind, cfg task.Config) task.Config {
	c := k.Config()
	reflect.ValueOf(c).Elem().Set(reflect.ValueOf(cfg).Elem())
	return c
}

func assign(list []*settings.Setting, name, text string) error {
	one := settings.Named(list, name)
	if one == nil {
		return fmt.Errorf("there is no setting %s", name)
	}
	if err := one.Assign(text); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// Config returns the settings of a trial. A parameter that is not used beside the others is 0 or, where that is none of
// its setting's values, the task's default. Settings that do not go together are an error.
func (t *Task) Config(s *tune.Space, v tune.Values) (task.Config, error) {
	cfg := copyOf(t.Kind, t.Base)
	list, defaults := settings.List(cfg), settings.List(t.Kind.Config())
	for _, p := range s.Params {
		one := settings.Named(list, p.Name)
		if one == nil {
			return nil, fmt.Errorf("there is no setting %s", p.Name)
		}
		text := settings.Named(defaults, p.Name).String()
		if value, used := v[p.Name]; used {
			text = p.Text(value)
		} else if p.Type != tune.Choice && one.Assign("0") == nil && one.Check() == nil {
			text = "0"
		}
		if err := assign(list, p.Name, text); err != nil {
			return nil, err
		}
	}
	return cfg, cfg.Validate()
}

// Recipe returns the settings of a trial as a recipe, which --config reads: those that differ from the task's defaults.
func (t *Task) Recipe(s *tune.Space, v tune.Values) (string, error) {
	cfg, err := t.Config(s, v)
	if err != nil {
		return "", err
	}
	return t.recipe(cfg), nil
}

var plainWord = regexp.MustCompile(`^[A-Za-z_][A-Za-z_0-9.-]*$`)

func (t *Task) recipe(cfg task.Config) string {
	var values map[string]json.RawMessage
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(cfg); err == nil {
		_ = json.Unmarshal(text.Bytes(), &values) // of what was just written
	}
	var b strings.Builder
	defaults := settings.List(t.Kind.Config())
	for i, one := range settings.List(cfg) {
		value, raw := one.String(), string(values[one.Name])
		switch {
		case value == defaults[i].String():
			continue
		case one.IsList(), strings.HasPrefix(raw, `"`) && !plainWord.MatchString(value):
			value = cmp.Or(raw, "[]")
		}
		fmt.Fprintf(&b, "%s: %s\n", one.Name, cmp.Or(value, `""`))
	}
	return b.String()
}

// read returns the data as the settings of the group Data have them read. It is read once for each combination, of which
// the last few are kept.
func (t *Task) read(ctx context.Context, cfg task.Config) (task.Data, error) {
	var key strings.Builder
	for _, s := range settings.List(cfg) {
		if s.Group == groupData {
			fmt.Fprintf(&key, "%s=%s\n", s.Name, s)
		}
	}
	t.mu.Lock()
	at := slices.IndexFunc(t.reads, func(r *reading) bool { return r.key == key.String() })
	if at < 0 {
		own := copyOf(t.Kind, cfg)
		r := &reading{key: key.String(), once: sync.OnceValues(func() (task.Data, error) { return t.Kind.Read(ctx, t.files, own) })}
		if t.reads = append(t.reads, r); len(t.reads) > mostReadings {
			t.reads = slices.Delete(t.reads, 1, 2) // the first is that of Base
		}
		at = len(t.reads) - 1
	}
	r := t.reads[at]
	t.mu.Unlock()
	return r.once()
}

// groupData is the group of the settings that decide how files are read.
const groupData = "Data"

// errDone ends a training after its last epoch, where no model is wanted.
var errDone = errors.New("trials: all epochs are done")

// Try trains a trial. It goes on from a checkpoint to the bit.
func (t *Task) Try(ctx context.Context, r *Run) (*Score, error) {
	score, err := t.try(ctx, r)
	if t.on != nil && t.on.Lost() != nil { // no other trial of this process has a chance
		return nil, &fatal{fmt.Errorf("%w; the trials at work are kept, and the study goes on with --resume, also with --device cpu", t.on.Lost())}
	}
	return score, err
}

func (t *Task) try(ctx context.Context, r *Run) (*Score, error) {
	cfg, err := t.Config(r.Space, r.Values)
	if err != nil {
		return nil, err
	}
	d, err := t.read(context.WithoutCancel(ctx), cfg) // the seed draws the parts too, so those of all runs are alike
	if err != nil {
		return nil, err
	}
	if one := settings.Named(settings.List(cfg), "seed"); one != nil && r.Seed > 0 {
		base, err := strconv.ParseUint(one.String(), 10, 64)
		if err == nil {
			err = one.Assign(strconv.FormatUint(base+r.Seed, 10))
		}
		if err != nil {
			return nil, err
		}
	}
	w := &training{Task: t, run: r, measures: t.measures(r.Space.Constraints)}
	if r.Checkpoint != nil {
		if err := w.restore(r.Checkpoint); err != nil {
			return nil, err
		}
	}
	return w.train(ctx, d, cfg)
}

// training is a run of a task.
type training struct {
	*Task
	run      *Run
	measures []string
	best     *train.Record // the epoch that the training chooses, so far
	stopped  bool          // by Report
	epochs   int           // planned
	weights  int           // of the network
	saved    time.Time     // when the checkpoint that was saved last was written
	unsaved  error         // why a checkpoint was not saved
}

func (w *training) checkpoint() string { return train.Checkpoint(w.run.Dir) }

// train runs the training until its end, or until it is to stop.
func (w *training) train(ctx context.Context, d task.Data, cfg task.Config) (*Score, error) {
	// A cancelled ctx pauses the training, so that no model is made in the end.
	inner, pause := context.WithCancelCause(context.WithoutCancel(ctx))
	defer pause(nil)
	defer context.AfterFunc(ctx, func() { pause(train.ErrPause) })()
	run := &train.Run{Dir: w.run.Dir, Resume: true, Device: w.on}
	run.OnStart, run.OnStep, run.OnValidate, run.OnEpoch = w.start, w.step, w.validated, w.closed
	stop := w.keepSaving(pause)
	m, result, err := w.Kind.Train(gated{inner, w.run.gate}, d, cfg, run)
	stop()
	switch {
	case w.unsaved != nil:
		return nil, w.unsaved
	case errors.Is(err, errDone), err == nil && !result.Interrupted:
	case w.stopped && errors.Is(err, train.ErrPause):
		return w.score(), w.save()
	case ctx.Err() != nil:
		return nil, cmp.Or(w.save(), context.Cause(ctx))
	default:
		return nil, err
	}
	score := w.score()
	if score == nil {
		return nil, fmt.Errorf("no epoch has a %s that is a number", strings.TrimPrefix(w.plan.Metric, "-"))
	}
	if err := w.measure(ctx, m, d, score); err != nil {
		return nil, err
	}
	return score, nil
}

// start notes what is behind a training, and ends it if that is all that it was to do.
func (w *training) start(p train.Plan) error {
	w.epochs, w.weights = p.Epochs, p.Weights
	for _, r := range p.History {
		w.take(r)
	}
	behind := 0
	if n := len(p.History); n > 0 {
		behind = p.History[n-1].Epoch
	}
	if w.run.Resume(behind) {
		w.stopped = true
		return train.ErrPause
	}
	return nil
}

// step ends a training that needs more memory than it may have, before it has all that it would take. The first steps show what
// a batch needs.
func (w *training) step(s train.Step) error {
	const vectors = 5 // weights, gradients, two moments, the best weights
	if need := s.TapeBytes + vectors*4*int64(w.weights); w.run.Memory > 0 && need > w.run.Memory {
		return overShare(need, w.run.Memory)
	}
	return nil
}

// take compares an epoch with the best so far, as [train.Fit] does.
func (w *training) take(r train.Record) {
	metric, larger := strings.CutPrefix(w.plan.Metric, "-")
	v, has := r.Val[metric]
	if !has || math.IsNaN(v) {
		return
	}
	if larger {
		v = -v
	}
	if w.best != nil {
		best := w.best.Val[metric]
		if larger {
			best = -best
		}
		if !(v < best || v == best && r.Val["loss"] < w.best.Val["loss"]) {
			return
		}
	}
	w.best = &r
}

// validated reports an epoch. It does so before a checkpoint has it.
func (w *training) validated(r train.Record) (err error) {
	if w.take(r); w.best == nil {
		return nil
	}
	w.stopped, err = w.run.Report(r.Epoch, r.Step, w.score().Values)
	return err
}

// closed ends the training after an epoch where it is to stop.
func (w *training) closed(r train.Record) error {
	switch {
	case r.Epoch == w.epochs && len(w.measures) == 0:
		return errDone
	case w.stopped && r.Epoch < w.epochs:
		return train.ErrPause
	}
	return nil
}

// score returns the metrics of the best epoch so far; nil if there is none. What only a model has is NaN.
func (w *training) score() *Score {
	if w.best == nil {
		return nil
	}
	s := &Score{Measures: map[string]float64{}}
	for _, o := range w.objectives {
		v, has := w.best.Val[o.Name]
		if !has {
			v = math.NaN()
		}
		s.Values = append(s.Values, v)
	}
	return s
}

// measure adds what is measured of the model.
func (w *training) measure(ctx context.Context, m *task.Trained, d task.Data, s *Score) error {
	for _, name := range w.measures {
		var x float64
		switch name {
		case Size:
			info, err := os.Stat(filepath.Join(w.run.Dir, model.WeightsFile))
			if err != nil {
				return err
			}
			x = float64(info.Size())
		case Latency:
			one, err := m.Probe(ctx, d, 1)
			if err != nil {
				return err
			}
			w.run.Alone(func() { x = medianTime(one, m.Slab().Device()) })
		}
		s.Measures[name] = x
		for i, o := range w.objectives {
			if o.Name == name {
				s.Values[i] = x
			}
		}
	}
	return nil
}

// medianTime returns the median time of passes of inference in ms: at least nine, for a third of a second.
func medianTime(pass func(*tensor.Tape) *tensor.Tensor, on *tensor.Device) float64 {
	tape := tensor.NewTape(on, tensor.Infer)
	var list []float64
	for begun := time.Now(); len(list) < 10 || time.Since(begun) < time.Second/3; {
		start := time.Now()
		tape.Reset()
		pass(tape).Item()
		list = append(list, float64(time.Since(start))/1e6)
	}
	list = list[1:] // the first packs the weights
	slices.Sort(list)
	return list[len(list)/2]
}

// keepSaving saves the checkpoints of a training from time to time, until stop is called. An error other than a
// lost lease pauses the training.
func (w *training) keepSaving(pause context.CancelCauseFunc) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	w.saved = time.Now()
	go func() {
		defer close(done)
		tick := time.NewTicker(w.run.Every)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				if err := w.save(); err != nil && !errors.Is(err, tune.ErrFenced) {
					w.unsaved = err
					pause(train.ErrPause)
					return
				}
			}
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}

// save keeps the last checkpoint if it is new. The training replaces the file as a whole.
func (w *training) save() error {
	info, err := os.Stat(w.checkpoint())
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.ModTime().Equal(w.saved) {
		return nil
	}
	if err != nil {
		return err
	}
	text, err := os.ReadFile(w.checkpoint())
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	z, err := zstd.NewWriter(&packed, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err == nil {
		_, err = z.Write(text)
	}
	if err == nil {
		err = z.Close()
	}
	if err == nil {
		err = w.run.Save(packed.Bytes())
	}
	if err == nil {
		w.saved = info.ModTime()
	}
	return err
}

// restore writes a checkpoint where the training looks for it.
func (w *training) restore(packed []byte) error {
	z, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer z.Close()
	if err := os.MkdirAll(filepath.Dir(w.checkpoint()), 0o777); err != nil {
		return err
	}
	return model.WriteFileAtomic(w.checkpoint(), func(to io.Writer) error {
		_, err := io.Copy(to, z)
		return err
	})
}

// gated is a context whose Err waits while something is measured alone: a training asks it before each step
// and each batch of its validation, and rests meanwhile.
type gated struct {
	context.Context
	gate *sync.Mutex
}

func (g gated) Err() error {
	g.gate.Lock()
	defer g.gate.Unlock()
	return g.Context.Err()
}
