// Package trials does the work of a study: it trains the trials of a task, or runs a command for
// each, on one or more cores, and says in the end whether the best of them beats the defaults.
//
// A [Subject] is what is tuned: a [Task] or a [Command]. [Begin] describes the study of one, [Work]
// works on it until it is done, [Repeat] trains the best trials with further seeds, and [Judge] names
// the winner.
package trials

import (
	"context"
	"time"

	"github.com/carousel-ml/carousel/tune"
)

// A Subject is what a study tunes.
type Subject interface {
	// Name says in a line what it is, with all that its results depend on besides data and values: a study is
	// continued only with the same.
	Name() string
	// Data is a checksum of the data, "" if there are none.
	Data() string
	// Objectives are what it measures, the first of which is also known part way.
	Objectives() []tune.Objective
	// Units is how much a whole trial is, in the units of Run.Report; 0 if that is unknown.
	Units() int
	// Resumable says that a run goes on from a checkpoint as if it had not been interrupted.
	Resumable() bool
	// Measured names objectives and measures that depend on the machine and its load, so that the study cannot be
	// repeated: it is replayed from its store.
	Measured(s *tune.Space) []string
	// Try works on a trial until its end, or until r.Report says stop. A trial that cannot be computed is an error;
	// that of a cancelled ctx is ctx's, after a last r.Save where it is resumable.
	Try(ctx context.Context, r *Run) (*Score, error)
}

// A Run is a trial in the hands of a worker, from its beginning or from a checkpoint.
type Run struct {
	Trial  int
	Values tune.Values
	// Seed is added to the subject's own: 0 for trials, 1 and more for repeats with other seeds.
	Seed uint64
	// Checkpoint is what it goes on from; nil: from the beginning.
	Checkpoint []byte
	// Report tells the objectives after at units of work and steps training steps, and whether to stop.
	Report func(at, steps int, values []float64) (stop bool, err error)
	// Save keeps a checkpoint, from which any worker can go on. Subjects that are resumable call it
	// from time to time and where a run stops without being done.
	Save func(checkpoint []byte) error
	// Dir is an empty folder, which is removed afterwards.
	Dir string
	// Every is the time between calls of Save while the run goes on.
	Every time.Duration
	// Alone waits until no other run of this process computes, so that times can be measured, and calls f.
	Alone func(f func())
}

// A Score is the result of a run.
type Score struct {
	Values   []float64          // the objectives
	Measures map[string]float64 // other numbers, such as those that constraints are on
}

// Options say how [Work] and [Repeat] work. The zero value is one worker without a limit.
type Options struct {
	Workers int           // trials that are computed at once, which share the process's cores; 0 means 1
	Time    time.Duration // after which no piece of work is begun; 0: no limit
	Every   time.Duration // between checkpoints in the store, from which another worker takes up a lost trial; 0 means a minute
	Scratch string        // folder for what trials write while they are at work; "": the system's
	// Note is told what a person may want to know, a sentence each; may be nil. It is called by several goroutines.
	Note func(text string)
}

// Begin returns the header of a study of a subject with options o, of which Objectives, Resource and
// Resumable are the subject's, and what a person must know of it: why it cannot be repeated, if so.
func Begin(s Subject, space *tune.Space, o tune.Options) (h *tune.Header, why string) {
	panic("soon")
}

// Work works on a study until it is done, ctx is cancelled, or its time is up (without an error; the study's text "ended" then
// says so). It may be called by many processes at once. A trial that fails, panics, diverges or would need
// more memory than its share is recorded as failed, and the work goes on; one whose worker is lost is taken
// up by another. When ctx is cancelled, trials at work are checkpointed and given back.
func Work(ctx context.Context, study *tune.Study, s Subject, o *Options) error { panic("soon") }

// Seeds is the number of seeds with which the best trials are trained, that of the trial itself included.
const Seeds = 3

// Repeat trains the best three trials and the defaults with further seeds, so that each has Seeds results. Runs are
// shared out to all processes that call it, and are in the store; what was done before is not done again.
func Repeat(ctx context.Context, study *tune.Study, s Subject, o *Options) error { panic("soon") }

// A Verdict compares the best trials with each other and with the defaults, over seeds.
type Verdict struct {
	Winner    int        `json:"winner"`    // number of the trial with the best mean; -1 if there is none
	Defaults  int        `json:"defaults"`  // number of the trial of the defaults; -1 if there is none that is complete
	Finalists []Finalist `json:"finalists"` // by mean, the best first; the defaults among them
	// Gain is by how much the winner's mean is better than the defaults', in units of the objective; Within is half of its 95 %
	// interval, by Welch's t.
	Gain   float64 `json:"gain"`
	Within float64 `json:"within"`
	Beats  bool    `json:"beats"` // Gain > Within
	Text   string  `json:"text"`  // the same in a sentence
}

// A Finalist is a trial with its results by seed.
type Finalist struct {
	Trial  int         `json:"trial"`
	Values tune.Values `json:"params"`
	Scores []float64   `json:"values"` // of the first objective, by seed, that of the trial first
	Mean   float64     `json:"mean"`
	SD     float64     `json:"sd"` // standard deviation over seeds
}

// Judge returns the verdict on a study, as far as its trials have been repeated; an error if no trial is complete.
func Judge(ctx context.Context, study *tune.Study) (*Verdict, error) { panic("soon") }

// From enqueues the best trials of an older study, at most most of them, whose values are values of this study's
// space, and returns how many. Parameters that the older one has not are the defaults.
func From(ctx context.Context, older, study *tune.Study, most int) (int, error) { panic("soon") }
