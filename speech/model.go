package speech

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/tensor"
)

// Task is what the config.json of a model directory says of a recogniser.
const Task = "transcribe"

// Model is a trained recogniser. It is safe for use by several goroutines.
type Model struct {
	cfg      Config
	alphabet *alphabet
	width    int // features of a frame, before slopes
	stats    *statistics
	net      *network
	slab     *tensor.Slab
	notes    []string
}

// saved is a Model's part of config.json.
type saved struct {
	Config     Config      `json:"config"`
	Alphabet   *alphabet   `json:"alphabet"`
	Width      int         `json:"width"`
	Statistics *statistics `json:"statistics,omitempty"`
	Notes      []string    `json:"notes,omitempty"`
}

// Config is the configuration, with everything that the data settled.
func (m *Model) Config() Config { return m.cfg }

// Slab is the network's parameters.
func (m *Model) Slab() *tensor.Slab { return m.slab }

// Notes say, a sentence each, what a user might not expect, such as utterances
// that training left out.
func (m *Model) Notes() []string { return slices.Clone(m.notes) }

// Alphabet is the units that the network spells, without the blank.
func (m *Model) Alphabet() []string { return slices.Clone(m.alphabet.Units) }

func newModel(c Config, a *alphabet, width int, stats *statistics) (*Model, error) {
	m := &Model{cfg: c, alphabet: a, width: width, stats: stats}
	var err error
	if m.net, err = newNetwork(&m.cfg, m.inputs(), a.classes()); err != nil {
		return nil, err
	}
	m.slab = tensor.Pack(tensor.CPU(), m.net, c.Seed)
	return m, nil
}

// inputs is the numbers of one step.
func (m *Model) inputs() int { return m.width * (m.cfg.Deltas + 1) * m.cfg.Stack }

// Save writes the model to a directory that [Open] reads.
func (m *Model) Save(dir string) error {
	return model.Save(dir, Task, saved{m.cfg, m.alphabet, m.width, m.stats, m.notes}, m.slab)
}

// Open reads a model directory. What is wrong with it is a *model.FileError.
func Open(dir string) (*Model, error) {
	d, err := model.Open(dir)
	if err != nil {
		return nil, err
	}
	if d.Task != Task {
		return nil, &model.FileError{File: dir, Problem: fmt.Sprintf("expected a recogniser of speech, got a model for task %q", d.Task), Fix: "use the commands of that task"}
	}
	var c saved
	if err := d.Decode(&c); err != nil {
		return nil, err
	}
	bad := func(err error) error {
		return &model.FileError{File: filepath.Join(dir, model.ConfigFile), Problem: err.Error(), Fix: "train the model again", Err: err}
	}
	if err := c.check(); err != nil {
		return nil, bad(err)
	}
	var m *Model
	shape := tensor.Catch(func() {
		m, err = newModel(c.Config, newAlphabet(c.Alphabet.Kind, c.Alphabet.Units), c.Width, c.Statistics)
	})
	if err == nil {
		err = shape
	}
	if err != nil {
		return nil, bad(err)
	}
	m.notes = c.Notes
	return m, d.Load(m.slab)
}

// check refuses a config.json that no Save wrote.
func (c *saved) check() error {
	if err := c.Config.Validate(); err != nil {
		return err
	}
	if c.Alphabet == nil || len(c.Alphabet.Units) == 0 || c.Alphabet.Kind != c.Config.Units {
		return fmt.Errorf("the alphabet is missing")
	}
	if c.Width < 1 || c.Width > 1<<16 {
		return fmt.Errorf("width: want 1 to %d, got %d", 1<<16, c.Width)
	}
	n := c.Width * (c.Config.Deltas + 1)
	if kind := c.Config.Normalize; kind == "running" || kind == "global" {
		if c.Statistics == nil || len(c.Statistics.Mean) != n || len(c.Statistics.Deviation) != n {
			return fmt.Errorf("statistics: want those of %d features", n)
		}
	}
	return nil
}
