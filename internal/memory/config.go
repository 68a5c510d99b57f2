// Package memory trains recurrent networks on benchmarks of memory: the adding
// problem, copying, and the embedded Reber grammar. Sequences are generated from
// a seed, with a known distance between information and its use, so a network
// either solves a problem or does not.
//
// A [Config] has the problem and the network; [Train] trains a [Model] and scores
// it on other sequences. A [Trial] compares cells, and [Suite] is the trials of
// the published tables.
package memory

import (
	"cmp"
	"github.com/carousel-ml/carousel/task"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
)

// Task is the name of the task in the config.json of a model directory.
const Task = "memory"

// Config is a network on a problem; start from [Defaults].
type Config struct {
	Problem string `json:"problem" oneof:"adding,copy,reber (the embedded Reber grammar)" group:"Problem" help:"problem to be learned"`
	Length  int    `json:"length" range:"0..100000" group:"Problem" help:"adding: steps of a sequence; copy: blanks between symbols and recall; reber: longest string (0: 100, 100, 50)"`

	task.RNNConfig

	Steps int     `json:"steps" range:"1..1e7" group:"Training" help:"most optimizer steps; training stops when the problem is solved"`
	Check int     `json:"check" range:"1..1e7" group:"Training" help:"steps between checks of whether the problem is solved"`
	Batch int     `json:"batch" range:"1..1e5" group:"Training" help:"number of sequences per step, new ones in each step"`
	LR    float64 `json:"lr" range:"0..10" group:"Training" help:"learning rate at every step, with Adam"`
	Clip  float64 `json:"clip" range:"0..1e38" group:"Training" help:"largest norm of the gradient (0: no limit)"`
	Seed  uint64  `json:"seed" group:"Training" help:"seed of the initial weights and the sequences"`
}

// Defaults returns the adding problem over 100 steps and an LSTM of 64 units.
func Defaults() Config {
	return Config{Problem: "adding", RNNConfig: task.DefaultRNN(), Steps: 20000, Check: 500, Batch: 50, LR: 1e-3, Clip: 1, Seed: 1}
}

// Validate returns the first invalid setting as a *data.InputError of one line,
// or nil.
func (c *Config) Validate() error {
	if err := cmp.Or(settings.Check(c), c.RNNConfig.Validate()); err != nil {
		return data.Setting(err)
	}
	if p := problems[c.Problem]; c.Length != 0 && c.Length < p.least {
		return data.Errorf("length: %s wants %d or more, got %d", c.Problem, p.least, c.Length)
	}
	if c.Bidirectional {
		return data.Errorf("bidirectional: a network that reads backwards needs no memory")
	}
	return nil
}

// length returns Length, or the default of the problem.
func (c *Config) length() int {
	if c.Length == 0 {
		return problems[c.Problem].length
	}
	return c.Length
}

// ProblemNames returns the names of the problems, sorted.
func ProblemNames() []string {
	var names []string
	for name := range problems {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// problem is a kind of sequence; length is as Config.Length.
type problem struct {
	length, least   int // the default, and the smallest
	inputs, outputs int
	ragged          bool // sequences end before the longest
	last            bool // one output at the end; otherwise one per step

	steps    func(length int) int     // of the longest sequence
	baseline func(length int) float64 // the error of the best output without memory
	draw     func(s *sequence, length int)
	score    func(out []float32, b *batch, row, length int) score // of one sequence's outputs
	solved   func(s Score, length int) bool
	enough   func(s Score, length int) bool // stricter than solved: training ends
}

var problems = map[string]*problem{"adding": &adding, "copy": &copying, "reber": &reber}

// Score is the scores of a network.
type Score struct {
	Error float64 `json:"error"` // adding: mean squared error; copy: mean cross-entropy of a step in nats; reber: share of strings not right throughout
	Right float64 `json:"right"` // adding: share of sums within 0.04; copy: share of recalled symbols; reber: share of strings
}

// score is the part of a sequence in a Score: sums, and their numbers of items.
type score struct{ err, right, errs, rights float64 }

func (s *score) add(o score) {
	s.err, s.right, s.errs, s.rights = s.err+o.err, s.right+o.right, s.errs+o.errs, s.rights+o.rights
}

func (s score) mean() Score {
	return Score{s.err / math.Max(s.errs, 1), s.right / math.Max(s.rights, 1)}
}
