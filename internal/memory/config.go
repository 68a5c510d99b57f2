// Package memory trains recurrent networks on the field's benchmarks of memory:
// the adding problem, copying, and the embedded Reber grammar. The sequences are
// made up on the spot from a seed; what the task needs from the distant past is
// known exactly, so a network either bridges the gap or it does not.
//
// A [Config] says which problem and which network; [Train] makes a [Model] and
// scores it on sequences it has not seen. A [Trial] compares cells, and [Suite]
// is the trials of the published tables.
package memory

import (
	"cmp"
	"github.com/carousel-ml/carousel/task"
	"math"
	"slices"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
)

// Task is what the config.json of a model directory says of a model of this package.
const Task = "memory"

// Config is one network on one problem; start from [Defaults].
type Config struct {
	Problem string `json:"problem" oneof:"adding,copy,reber (the embedded Reber grammar)" group:"Problem" help:"what is to be learned"`
	Length  int    `json:"length" range:"0..100000" group:"Problem" help:"adding: steps of a sequence; copy: blanks between symbols and recall; reber: longest string (0: 100, 100, 50)"`

	task.RNNConfig

	Steps int     `json:"steps" range:"1..1e7" group:"Training" help:"most optimizer steps; a network that has solved its problem stops"`
	Check int     `json:"check" range:"1..1e7" group:"Training" help:"steps between two looks at whether it has"`
	Batch int     `json:"batch" range:"1..4096" group:"Training" help:"sequences of a step, new ones each time"`
	LR    float64 `json:"lr" range:"1e-9..10" group:"Training" help:"learning rate of Adam"`
	Clip  float64 `json:"clip" range:"0..1e9" group:"Training" help:"largest norm of the gradient (0: no limit)"`
	Seed  uint64  `json:"seed" group:"Training" help:"of the first weights and the sequences"`
}

// Defaults is the adding problem over 100 steps and an LSTM of 64 units.
func Defaults() Config {
	return Config{Problem: "adding", RNNConfig: task.DefaultRNN(), Steps: 20000, Check: 500, Batch: 50, LR: 1e-3, Clip: 1, Seed: 1}
}

// Validate reports in one line the first setting that cannot be, as a *data.InputError.
func (c *Config) Validate() error {
	if err := cmp.Or(settings.Check(c), c.RNNConfig.Validate()); err != nil {
		return data.Setting(err)
	}
	if p := problems[c.Problem]; c.Length != 0 && c.Length < p.least {
		return data.Errorf("length: %s wants %d or more, got %d", c.Problem, p.least, c.Length)
	}
	if c.Bidirectional {
		return data.Errorf("bidirectional: a network that reads from the end needs no memory")
	}
	return nil
}

// length is Length with the problem's default.
func (c *Config) length() int {
	if c.Length == 0 {
		return problems[c.Problem].length
	}
	return c.Length
}

// ProblemNames are the problems, sorted.
func ProblemNames() []string {
	var names []string
	for name := range problems {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// problem is a kind of sequence, with a length that means what Config.Length says.
type problem struct {
	length, least   int // the default, and the smallest
	inputs, outputs int
	ragged          bool // sequences end before the longest
	last            bool // one answer at the end; else one a step

	steps    func(length int) int     // of the longest sequence
	baseline func(length int) float64 // the error of answering without memory
	draw     func(s *sequence, length int)
	score    func(out []float32, b *batch, row, length int) score // of one sequence's outputs
	solved   func(s Score, length int) bool
	enough   func(s Score, length int) bool // solved with something to spare, on fewer sequences: training ends
}

var problems = map[string]*problem{"adding": &adding, "copy": &copying, "reber": &reber}

// Score is how well a network answers.
type Score struct {
	Error float64 `json:"error"` // adding: mean squared error; copy: mean cross-entropy of a step in nats; reber: share of strings not right throughout
	Right float64 `json:"right"` // adding: share of sums within 0.04; copy: share of recalled symbols; reber: share of strings
}

// score is a sequence's part in a Score: sums over so many items.
type score struct{ err, right, errs, rights float64 }

func (s *score) add(o score) {
	s.err, s.right, s.errs, s.rights = s.err+o.err, s.right+o.right, s.errs+o.errs, s.rights+o.rights
}

func (s score) mean() Score {
	return Score{s.err / math.Max(s.errs, 1), s.right / math.Max(s.rights, 1)}
}
