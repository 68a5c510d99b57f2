// Package batch runs programs, such as the step of a recurrent network, for many
// callers at once: what is ready when the program becomes free is one batch, callers
// join and leave between batches, and nobody waits for a timer. It keeps the states of
// sessions, divides the machine fairly among models and clients, and bounds queues.
package batch

import (
	"context"
	"encoding"
	"time"

	"github.com/carousel-ml/carousel/serve/inference"
)

// Program is a model as the scheduler runs it. Its methods are safe for concurrent use.
type Program interface {
	// Inputs and Outputs describe what a job gives and gets, in this order.
	Inputs() []inference.Info
	Outputs() []inference.Info
	// Platform is the kind of program in the protocol's metadata, such as "onnx".
	Platform() string
	// Batched reports whether jobs are computed together.
	Batched() bool
	// Check checks a job's inputs and sets its Key, Rows and Cost. Its errors are
	// *inference.Error.
	Check(j *Job) error
	// Run computes jobs of one Key, each of another session if they have one, and sets
	// the Outputs or the Err of each. It may end early with the error of ctx, which is
	// cancelled when no job is wanted any more. After a panic the jobs are run again, one by
	// one, so it must not have changed a state of a session by then: it changes all of them
	// when nothing can fail any more, or one after the other in Job.Compute.
	Run(ctx context.Context, jobs []*Job)
	// NewState returns the state of a session that has seen nothing; nil if the program
	// keeps no state.
	NewState() State
	// Fingerprint identifies the weights: states of programs with equal fingerprints may
	// be exchanged.
	Fingerprint() string
	// Close releases the program's memory. Nothing is called afterwards.
	Close()
}

// State is what a program keeps of a session between its jobs. It is used by one job
// at a time. UnmarshalBinary checks all that it reads and changes nothing on an error.
type State interface {
	encoding.BinaryMarshaler
	encoding.BinaryUnmarshaler
	// Bytes returns its memory.
	Bytes() int
}

// Job is a request of a program.
type Job struct {
	Inputs  []inference.Value // in the program's order; one without Dims is not given
	Outputs []inference.Value // in the program's order, set by Run
	Want    []bool            // the outputs that are wanted; nil: all but states in a session, all otherwise
	Options any               // of the program's kind, such as a task's prediction options

	Session *Session // whose state the job continues; nil: none
	Begin   bool     // the session's state is made anew before the job
	End     bool     // the session ends with the job

	Client   string // whom limits count for; clients take turns
	Conn     string // what takes turns within a client, such as a connection
	Priority int    // jobs of smaller ones go first; 0 is the usual one

	// Set by Program.Check: only jobs with equal keys are computed together; Rows is
	// the number of rows in a batch, Cost what the job takes in units of the program, such as
	// steps or bytes of text, and Alike a length: a job more than twice as long as another
	// waits for another batch.
	Key   any // comparable
	Rows  int
	Cost  float64
	Alike int

	Err error // set by Run

	Queued, Started, Finished time.Time
	Batch                     int // rows of the batch that the job was in

	ctx    context.Context
	lane   *lane
	alone  func() // what runs in place of the program, without an executor
	ready  chan struct{}
	at     place
	late   bool // it ended with its context
	broken bool // the program panicked
	next   *Job // in the queue of a client or of a session
	round  uint64
}

// list is jobs in a row; one is in one list at a time.
type list struct{ first, last *Job }

// insert puts a job behind another, or, if that is nil, in front.
func (l *list) insert(before, j *Job) {
	at := l.after(before)
	j.next, *at = *at, j
	if j.next == nil {
		l.last = j
	}
}

// cut removes the job that is behind another, or, if that is nil, the first.
func (l *list) cut(before *Job) *Job {
	at := l.after(before)
	j := *at
	if *at, j.next = j.next, nil; *at == nil {
		l.last = before
	}
	return j
}

func (l *list) after(before *Job) **Job {
	if before == nil {
		return &l.first
	}
	return &before.next
}

// remove removes a job; ok is false if it is not in the list.
func (l *list) remove(j *Job) (ok bool) {
	for before, k := (*Job)(nil), l.first; k != nil; before, k = k, k.next {
		if k == j {
			l.cut(before)
			return true
		}
	}
	return false
}

// place is where a job is.
type place uint8

const (
	waits    place = iota // behind another job of its session
	queued                // in a lane
	running               // in a batch, or on its own
	finished              // or given up before it ran
)

// Wanted reports whether output i is to be set.
func (j *Job) Wanted(i int, info *inference.Info) bool {
	if j.Want != nil {
		return j.Want[i]
	}
	return j.Session == nil || !info.State
}

// State returns the state that the job continues; nil without a session.
func (j *Job) State() State {
	if j.Session == nil {
		return nil
	}
	return j.Session.state
}
