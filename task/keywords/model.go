package keywords

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Model is a trained classifier of sounds. It is safe for concurrent use.
type Model struct {
	task.Memory
	cfg      Config
	classes  []string
	frontend *speech.Frontend
	net      *speech.Network
	slab     *tensor.Slab
}

// saved is a Model's part of config.json.
type saved struct {
	Config  Config   `json:"config"`
	Classes []string `json:"classes"`
	speech.Frontend
}

// Config returns the configuration, in which the values that depend on the data
// are set.
func (m *Model) Config() Config { return m.cfg }

// Slab returns the network's parameters. They must not be changed while the model
// is in use.
func (m *Model) Slab() *tensor.Slab { return m.slab }

// Notes returns nil: there are no notes on the training.
func (m *Model) Notes() []string { return nil }

// Classes returns the labels in alphabetical order.
func (m *Model) Classes() []string { return slices.Clone(m.classes) }

// newModel makes an untrained model for settled settings.
func newModel(c Config, classes []string, f *speech.Frontend, on *tensor.Device) (_ *Model, err error) {
	defer tensor.Recover(&err)
	m := &Model{cfg: c, classes: classes}
	m.frontend = f.With(&m.cfg.Setup)
	if m.net, err = speech.NewNetwork(&m.cfg.Setup, m.frontend.Inputs(), len(classes), pools[c.Pool]); err != nil {
		return nil, err
	}
	m.slab = tensor.Pack(on, m.net, c.Seed)
	return m, nil
}

// Save writes the model to a directory that [Open] reads. Its errors are those of
// [model.Save].
func (m *Model) Save(dir string) error {
	return model.Save(dir, Name, saved{m.cfg, m.classes, *m.frontend}, append(m.Remembered(), model.Weights(m.slab))...)
}

// Open reads a model directory. A directory that is missing, damaged or of
// another task is a *model.FileError. The network is put on the device given, by
// default the CPU.
func Open(dir string, on ...*tensor.Device) (*Model, error) {
	return model.OpenAs(dir, OpenDir, on...)
}

// OpenDir is [Open] for a directory that has been read already, with the same
// errors.
func OpenDir(d *model.Dir, on ...*tensor.Device) (_ *Model, err error) {
	defer tensor.Recover(&err)
	var c saved
	err = d.For(Name, "a classifier of keywords", &c, was)
	if err != nil {
		return nil, err
	}
	if err = c.Config.Validate(); err == nil {
		err = c.With(&c.Config.Setup).Check()
	}
	if err == nil && (len(c.Classes) < 2 || !slices.IsSorted(c.Classes) || len(slices.Compact(slices.Clone(c.Classes))) < len(c.Classes)) {
		err = fmt.Errorf("classes: want two or more, sorted, each once")
	}
	var m *Model
	if err == nil {
		m, err = newModel(c.Config, c.Classes, &c.Frontend, cmp.Or(on...))
	}
	if err != nil {
		return nil, d.Broken(err)
	}
	return m, cmp.Or(d.Load(m.slab), m.Recall(d))
}
