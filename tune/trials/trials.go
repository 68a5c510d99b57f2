// Package trials does the work of a study: it trains the trials of a task, or runs a command for
// each, and says in the end whether the best of them beats the defaults by more than noise.
//
// A [Subject] is what is tuned: a [Task] or a [Command]. [Begin] describes the study of one, [Work]
// works on it until it is done, [Repeat] trains the best trials with further seeds, and [Judge] names
// the winner.
package trials

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/tune"
)

// A Subject is what a study tunes.
type Subject interface {
	// Name says what it is, with all that its results depend on besides data and values, line by line: a study is
	// continued only with the same.
	Name() string
	// Data is a checksum of the data, "" if there are none.
	Data() string
	// Objectives are what it measures.
	Objectives() []tune.Objective
	// Units is how much a whole trial is, in the units of Run.Report; 0 if that is unknown.
	Units() int
	// Resumable says that a run goes on from a checkpoint as if it had not been interrupted.
	Resumable() bool
	// Measured names what depends on the machine and its load in a study of a space, so that the study cannot be
	// repeated: it is replayed from its store.
	Measured(s *tune.Space) []string
	// Check returns a *data.InputError for a space that is not one of the subject.
	Check(s *tune.Space) error
	// Try works on a trial until its end, or until r.Report says stop. A trial that cannot be computed is an error;
	// that of a cancelled ctx is its cause, after a last r.Save where it is resumable.
	Try(ctx context.Context, r *Run) (*Score, error)
}

// A Run is a trial in the hands of a worker, from its beginning or from a checkpoint.
type Run struct {
	Space  *tune.Space
	Trial  int
	Values tune.Values
	// Seed is added to the subject's own: 0 for trials, 1 and more for repeats with other seeds.
	Seed uint64
	// Checkpoint is what it goes on from; nil: from the beginning.
	Checkpoint []byte
	// Resume says how many units are behind a run that goes on, and returns whether it is to stop there.
	Resume func(at int) (stop bool)
	// Report tells the objectives after at units of work and steps training steps, NaN where one is not known yet, and
	// returns whether to stop.
	Report func(at, steps int, values []float64) (stop bool, err error)
	// Save keeps a checkpoint, from which any worker can go on. What it has behind it must have been reported.
	Save func(checkpoint []byte) error
	// Every is the time between calls of Save while the run goes on.
	Every time.Duration
	// Memory is the bytes that the run may take; 0: no limit.
	Memory int64
	// Dir is an empty folder, which is removed afterwards.
	Dir string

	gate *sync.Mutex // of the process: held while something is measured
}

// Alone calls f while the other runs of the process rest, so that it can measure times.
func (r *Run) Alone(f func()) {
	r.gate.Lock()
	defer r.gate.Unlock()
	f()
}

// A Score is the result of a run.
type Score struct {
	Values   []float64          // the objectives
	Measures map[string]float64 // other numbers, such as those that constraints are on
}

// fatal is an error of which no trial is free, so that it ends the work.
type fatal struct{ error }

func (f *fatal) Unwrap() error { return f.error }

// Begin returns the header of a study of a subject with options o, of which Objectives, Resource, Least and
// Resumable are the subject's unless they are given. why says why the study cannot be repeated, "" if
// it can. Options and spaces that do not go together are a *data.InputError.
func Begin(s Subject, space *tune.Space, o tune.Options) (h *tune.Header, why string, err error) {
	if err := s.Check(space); err != nil {
		return nil, "", err
	}
	o.Objectives, o.Resumable = s.Objectives(), s.Resumable()
	if o.Resource == 0 {
		o.Resource = s.Units()
	}
	if o.Pruner != "" && o.Pruner != "none" {
		if o.Resource == 0 {
			return nil, "", &data.InputError{Problem: fmt.Sprintf("pruner %s needs to know how long a whole trial is", o.Pruner), Fix: "set its number of epochs, or use pruner none"}
		}
		if o.Least == 0 {
			o.Least = max(1, o.Resource/9) // with a reduction of 3 a trial in nine is trained to the end
		}
	}
	var reasons []string
	if o.Asynchronous {
		reasons = append(reasons, "trials follow from whichever were finished first (asynchronous)")
	}
	if measured := s.Measured(space); len(measured) > 0 {
		reasons = append(reasons, strings.Join(measured, " and ")+" depends on the machine and its load")
	}
	return &tune.Header{Options: o, Subject: s.Name(), Data: s.Data()}, strings.Join(reasons, "; "), nil
}
