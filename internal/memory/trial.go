package memory

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/carousel-ml/carousel/cell"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/train"
)

// Trial compares cells on a problem, with the same settings for all.
type Trial struct {
	Config
	Cells []string `json:"cells" oneof:"@cells" group:"Problem" help:"cells to compare"`
	Runs  int      `json:"runs" range:"1..1e6" group:"Problem" help:"networks per cell, with consecutive seeds"`
}

// DefaultTrial returns the comparison of one plain RNN, LSTM and GRU each with
// [Defaults].
func DefaultTrial() Trial {
	return Trial{Config: Defaults(), Cells: []string{"rnn", "lstm", "gru"}, Runs: 1}
}

// Suite returns the trials of the published tables, with the settings of the
// recipes memory_*.yaml; they take hours. With quick it returns a few short
// problems that take about a minute.
func Suite(quick bool) []Trial {
	with := func(f func(t *Trial)) Trial {
		t := DefaultTrial()
		f(&t)
		return t
	}
	if quick {
		return []Trial{
			with(func(t *Trial) {
				t.Problem, t.Length, t.Hidden, t.Chrono, t.LR, t.Steps, t.Check = "adding", 40, 32, 40, 5e-3, 1000, 100
			}),
			with(func(t *Trial) {
				t.Problem, t.Hidden, t.Batch, t.LR, t.Steps, t.Check = "reber", 16, 16, 1e-2, 2000, 100
			}),
		}
	}
	return []Trial{
		with(func(t *Trial) { t.Problem, t.Length = "adding", 100 }),
		with(func(t *Trial) { t.Problem, t.Length = "adding", 400 }),
		with(func(t *Trial) { t.Problem, t.Length = "adding", 750 }),
		with(func(t *Trial) { t.Problem, t.Length = "copy", 100 }),
		with(func(t *Trial) { t.Problem = "reber" }),
	}
}

// Validate returns the first invalid setting of any of the trial's networks as a
// *data.InputError, or nil.
func (t *Trial) Validate() error {
	if len(t.Cells) == 0 {
		return data.Errorf("cells: name at least one, such as lstm")
	}
	if err := settings.Check(t); err != nil {
		return data.Setting(err)
	}
	for _, c := range t.Networks() {
		if err := c.Validate(); err != nil {
			return err
		}
	}
	return nil
}

// Networks returns the configurations to be trained, cell by cell.
func (t *Trial) Networks() []Config {
	var list []Config
	for _, name := range t.Cells {
		kind, _ := cell.Named(name)
		for run := range t.Runs {
			c := t.Config
			c.Cell, c.Seed = name, t.Seed+uint64(run)
			if !kind.Has(cell.WithChrono) {
				c.Chrono = 0 // for cells with a forget gate only
			}
			list = append(list, c)
		}
	}
	return list
}

// Row is the result of the networks of one cell: a row of the table.
type Row struct {
	Problem    string  `json:"problem"`    // adding, copy or reber
	Length     int     `json:"length"`     // of the sequences, as the setting length
	Cell       string  `json:"cell"`       // kind of cell
	Units      int     `json:"units"`      // of each network
	Parameters int     `json:"parameters"` // of each network
	Runs       int     `json:"runs"`       // networks trained
	Solved     int     `json:"solved"`     // number of networks that solved the problem
	Steps      int     `json:"steps"`      // of the median run
	Sequences  int     `json:"sequences"`  // training sequences of the median run
	Error      float64 `json:"error"`      // of the median run on the test sequences: see [Score]
	Right      float64 `json:"right"`      // likewise
	Baseline   float64 `json:"baseline"`   // the error of the best outputs without memory
	Seconds    float64 `json:"seconds"`    // wall time of all runs
}

// TrialOptions are the options of [Trial.Run]; nil is the zero value.
type TrialOptions struct {
	Dir      string // a directory for each network is made in it; "" writes nothing
	Resume   bool   // use finished networks of Dir, and continue others
	Progress *train.Progress
	Note     func(text string) // called with the name of each network before its training; may be nil
}

// Run trains all networks and returns a row per cell. Invalid settings, and a
// network of other settings in Dir, are a *data.InputError; a network in Dir that
// cannot be read is a *model.FileError. A cancelled ctx returns its cause, and
// Dir has what Resume continues. Other errors are those of [Train].
func (t *Trial) Run(ctx context.Context, o *TrialOptions) ([]Row, error) {
	if o == nil {
		o = &TrialOptions{}
	}
	if err := t.Validate(); err != nil {
		return nil, err
	}
	var rows []Row
	outcomes := map[string][]Outcome{}
	for _, c := range t.Networks() {
		out, err := c.train(ctx, o)
		if err != nil {
			return nil, err
		}
		outcomes[c.Cell] = append(outcomes[c.Cell], out)
	}
	for _, cell := range t.Cells {
		rows = append(rows, t.row(cell, outcomes[cell]))
	}
	return rows, nil
}

// name returns the name of the directory of a network.
func (c *Config) name() string {
	return fmt.Sprintf("%s-%d-%s-%d", c.Problem, c.length(), c.Cell, c.Seed)
}

// train trains one network of a trial, or reads a finished one.
func (c *Config) train(ctx context.Context, o *TrialOptions) (Outcome, error) {
	to := &train.Run{Progress: o.Progress}
	if o.Dir != "" {
		to.Dir = filepath.Join(o.Dir, c.name())
		if _, err := os.Stat(filepath.Join(to.Dir, model.ConfigFile)); err == nil && o.Resume {
			m, err := Open(to.Dir)
			if err == nil && m.cfg != *c {
				err = data.Errorf("%s holds a network of other settings; give another directory", to.Dir)
			}
			if err != nil {
				return Outcome{}, err
			}
			return m.outcome, nil
		}
		_, err := os.Stat(filepath.Join(to.Dir, "checkpoints"))
		to.Resume = err == nil && o.Resume
	}
	if o.Note != nil {
		o.Note(strings.ReplaceAll(c.name(), "-", " "))
	}
	m, r, err := Train(ctx, *c, to)
	if err != nil {
		return Outcome{}, err
	}
	if r.Interrupted {
		return Outcome{}, context.Cause(ctx)
	}
	return m.outcome, nil
}

func (t *Trial) row(cell string, outcomes []Outcome) Row {
	r := Row{Problem: t.Problem, Length: t.length(), Cell: cell, Units: t.Hidden, Runs: len(outcomes)}
	slices.SortStableFunc(outcomes, func(a, b Outcome) int { return a.Steps - b.Steps })
	middle := outcomes[len(outcomes)/2]
	r.Parameters, r.Baseline, r.Steps, r.Error, r.Right = middle.Parameters, middle.Baseline, middle.Steps, middle.Test.Error, middle.Test.Right
	r.Sequences = r.Steps * t.Batch
	for _, o := range outcomes {
		if o.Solved {
			r.Solved++
		}
		r.Seconds += o.Seconds
	}
	return r
}
