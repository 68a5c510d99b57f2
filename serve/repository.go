package serve

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/model/network"
	"github.com/carousel-ml/carousel/model/onnx"
	"github.com/carousel-ml/carousel/model/onnx/graph"
	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
)

// ModelConfig says where a model is and how it is served.
type ModelConfig struct {
	// Name is the model's name; empty: that of the directory, or of the file without .onnx.
	Name string
	// Path is a model directory of a task, of imported layers or of a network, an ONNX file,
	// or a directory whose subdirectories are numbers, the versions, of which each
	// is such a directory or holds model.onnx.
	Path string
	// Queue is the options of its queue.
	Queue batch.QueueOptions
	// States has the outputs of a graph by the inputs that take them as states, as
	// graph.SessionOptions; NoBatch computes requests of a graph one by one.
	States  map[string]string
	NoBatch bool
	// Labels are names of the places of outputs' last dimension, for classification.
	Labels map[string][]string
	// Life is the time that a session may be idle. 0: the server's.
	Life time.Duration
	// Versions is the number of the newest versions that are served. 0: one.
	Versions int
}

// repository is the models of a server, by name.
type repository struct {
	mu      sync.RWMutex
	entries map[string]*entry
}

// entry is a model with its versions. An entry is never changed: a new one takes its
// place.
type entry struct {
	name     string
	c        ModelConfig
	pipeline *pipeline  // nil: it is a model
	versions []*version // that are served, the newest first
	wanted   bool       // it was not unloaded by a client
	reason   string     // why no version, or not the newest one, is served
}

// version is a program that is served.
type version struct {
	name, number string
	c            ModelConfig
	q            *batch.Queue
	meter        *meter
	ins, outs    []inference.Info
	inAt, outAt  map[string]int
	retired      atomic.Bool  // a newer one has its place; it closes with its last session
	decoded      atomic.Int64 // nanoseconds of reading requests and of writing answers
	encoded      atomic.Int64
	loaded       time.Time
}

func (v *version) program() batch.Program { return v.q.Program }

// quiet waits until no request of the version waits or runs.
func (v *version) quiet(ctx context.Context) error { return v.q.Quiet(ctx) }

func (r *repository) list() []*entry {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := make([]*entry, 0, len(r.entries))
	for _, e := range r.entries {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b *entry) int { return cmp.Compare(a.name, b.name) })
	return list
}

func (r *repository) get(name string) *entry {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.entries[name]
}

// put replaces an entry and returns the one before.
func (r *repository) put(e *entry) *entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.entries[e.name]
	r.entries[e.name] = e
	return old
}

// find returns a version of a model, the newest for "".
func (s *Server) find(name, number string) (*entry, *version, error) {
	e := s.models.get(name)
	if e == nil {
		return nil, nil, inference.Errorf(inference.NotFound, "unknown model %q: the server has %s", name, s.names())
	}
	if e.pipeline != nil {
		if !e.wanted {
			return e, nil, inference.Errorf(inference.Unavailable, "model %q is not ready: %s", name, e.reason)
		}
		if number != "" && number != "1" {
			return nil, nil, inference.Errorf(inference.NotFound, "model %q has no version %q: it is a pipeline, whose version is 1", name, number)
		}
		return e, nil, nil
	}
	if len(e.versions) == 0 {
		return e, nil, inference.Errorf(inference.Unavailable, "model %q is not ready: %s", name, cmp.Or(e.reason, "it is unloaded"))
	}
	if number == "" {
		return e, e.versions[0], nil
	}
	var have []string
	for _, v := range e.versions {
		if v.number == number {
			return e, v, nil
		}
		have = append(have, v.number)
	}
	return e, nil, inference.Errorf(inference.NotFound, "model %q has no version %q: it has %s", name, number, strings.Join(have, ", "))
}

// names lists the models for messages.
func (s *Server) names() string {
	var names []string
	for _, e := range s.models.list() {
		if len(names) == 20 {
			names = append(names, "...")
			break
		}
		names = append(names, strconv.Quote(e.name))
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, ", ")
}

// Add adds a model and loads it. A model that does not open is an error, and stands in the
// index as not ready with the reason; a name that is taken, or none, is an error.
func (s *Server) Add(ctx context.Context, c ModelConfig) error {
	if c.Name == "" {
		c.Name = nameOf(c.Path)
	}
	if err := checkName(c.Name); err != nil {
		return err
	}
	s.models.mu.Lock()
	if s.models.entries[c.Name] != nil {
		s.models.mu.Unlock()
		return fmt.Errorf("two models have the name %q; give one another name with PATH=NAME", c.Name)
	}
	s.models.entries[c.Name] = &entry{name: c.Name, c: c, wanted: true, reason: "it is being loaded"}
	s.models.mu.Unlock()
	return s.Load(ctx, c.Name)
}

func nameOf(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	return strings.TrimSuffix(filepath.Base(path), ".onnx")
}

func checkName(name string) error {
	if name == "" || len(name) > 256 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == '/' }) {
		return fmt.Errorf("%q cannot be the name of a model: use 1 to 256 characters without / and control characters", name)
	}
	return nil
}

// Load loads a model of the server, or loads it anew: requests go to the new versions at
// once, and sessions go on in the version that they began in. If a version does not open,
// the error says why, and the ones before are served as before.
func (s *Server) Load(ctx context.Context, name string) error {
	e := s.models.get(name)
	if e == nil {
		return inference.Errorf(inference.NotFound, "unknown model %q: the server has %s", name, s.names())
	}
	if e.pipeline != nil {
		s.models.put(&entry{name: name, pipeline: e.pipeline, wanted: true})
		return nil
	}
	versions, err := s.open(ctx, e.c)
	if err != nil {
		failed := *e
		failed.wanted, failed.reason = true, err.Error()
		s.models.put(&failed)
		s.log.Error("a model cannot be loaded", "model", name, "reason", err.Error())
		return inference.Errorf(inference.Invalid, "model %q: %v", name, err)
	}
	old := s.models.put(&entry{name: name, c: e.c, versions: versions, wanted: true})
	for _, v := range versions {
		s.log.Info("a model is loaded", "model", name, "version", v.number, "platform", v.program().Platform(), "batched", v.program().Batched())
	}
	s.retire(old.versions)
	return nil
}

// Unload takes a model from service: its sessions end, requests that are accepted are
// answered. With forget its name is free again.
func (s *Server) Unload(ctx context.Context, name string, forget bool) error {
	e := s.models.get(name)
	if e == nil {
		return inference.Errorf(inference.NotFound, "unknown model %q: the server has %s", name, s.names())
	}
	s.models.put(&entry{name: name, c: e.c, pipeline: e.pipeline, reason: "it was unloaded"})
	if e.pipeline != nil {
		s.sessions.Each(nil, func(n *batch.Session) bool {
			for i := range e.pipeline.c.Stages {
				if n.Model() == e.pipeline.session(i) {
					n.End(batch.Unloaded)
				}
			}
			return true
		})
	}
	if forget {
		s.models.mu.Lock()
		delete(s.models.entries, name)
		s.models.mu.Unlock()
	}
	var first error
	for _, v := range e.versions {
		v.retired.Store(true)
		s.sessions.EndAll(v.q, batch.Unloaded)
		if err := v.q.Close(ctx); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// retire closes versions that others have replaced, each with its last session.
func (s *Server) retire(old []*version) {
	for _, v := range old {
		v.retired.Store(true)
		s.closeIdle(v)
	}
}

// closeIdle closes a retired version that has no session.
func (s *Server) closeIdle(v *version) {
	if n, _ := s.sessions.Count(v.q); n == 0 {
		go func() { _ = v.q.Close(context.Background()) }() // which cannot end early
	}
}

// sessionEnded is told of the end of each session, with the scheduler's lock held.
func (s *Server) sessionEnded(n *batch.Session, why batch.Reason) {
	if why != batch.Ended {
		s.log.Info("a session is over", "model", n.Model(), "reason", string(why))
	}
	if v, ok := n.Queue().Owner.(*version); ok {
		v.meter.over(why)
		if v.retired.Load() {
			go s.closeIdle(v)
		}
	}
}

// open opens the versions of a model that are to be served.
func (s *Server) open(ctx context.Context, c ModelConfig) ([]*version, error) {
	numbers, err := versionsIn(c.Path)
	if err != nil {
		return nil, err
	}
	if numbers == nil {
		v, err := s.openOne(ctx, c, c.Path, "1")
		if err != nil {
			return nil, err
		}
		return []*version{v}, nil
	}
	numbers = numbers[:min(len(numbers), max(1, c.Versions))]
	var list []*version
	for _, n := range numbers {
		path := filepath.Join(c.Path, strconv.Itoa(n))
		if file := filepath.Join(path, "model.onnx"); isFile(file) {
			path = file
		}
		v, err := s.openOne(ctx, c, path, strconv.Itoa(n))
		if err != nil {
			for _, other := range list {
				_ = other.q.Close(ctx) // it was never used
			}
			return nil, fmt.Errorf("version %d: %w", n, err)
		}
		list = append(list, v)
	}
	return list, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// versionsIn returns the versions in a directory, the newest first; nil if it is no
// directory of versions.
func versionsIn(path string) ([]int, error) {
	list, err := os.ReadDir(path)
	if err != nil {
		if isFile(path) {
			return nil, nil
		}
		return nil, err
	}
	var numbers []int
	for _, f := range list {
		if n, err := strconv.Atoi(f.Name()); err == nil && n > 0 && strconv.Itoa(n) == f.Name() && f.IsDir() {
			numbers = append(numbers, n)
		}
		if f.Name() == model.ConfigFile {
			return nil, nil
		}
	}
	slices.SortFunc(numbers, func(a, b int) int { return b - a })
	return numbers, nil
}

// openOne opens a version.
func (s *Server) openOne(ctx context.Context, c ModelConfig, path, number string) (*version, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, err := s.program(c, path)
	if err != nil {
		return nil, err
	}
	return s.newVersion(c, number, p), nil
}

// newVersion returns a version with a queue of its own for a program.
func (s *Server) newVersion(c ModelConfig, number string, p batch.Program) *version {
	v := &version{name: c.Name, number: number, c: c, ins: p.Inputs(), outs: p.Outputs(),
		inAt: map[string]int{}, outAt: map[string]int{}, loaded: time.Now(), meter: newMeter(c.Name, number)}
	for i, in := range v.ins {
		v.inAt[in.Name] = i
	}
	for i, out := range v.outs {
		v.outAt[out.Name] = i
	}
	o := c.Queue
	o.Log = s.log
	told := o.OnBatch
	o.OnBatch = func(rows int, took time.Duration) {
		v.meter.batch(rows, took)
		if told != nil {
			told(rows, took)
		}
	}
	v.q = s.sched.Add(p, o)
	v.q.Owner = v
	return v
}

// program opens a file or directory of any kind.
func (s *Server) program(c ModelConfig, path string) (batch.Program, error) {
	o := graphOptions{states: c.States, noBatch: c.NoBatch, labels: c.Labels}
	if isFile(path) {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		m, err := graph.Read(path)
		if err != nil {
			return nil, err
		}
		return newGraphProgram(m, fingerprint(b), o)
	}
	d, err := model.Open(path)
	if err != nil {
		return nil, err
	}
	switch d.Task {
	case model.WeightsTask:
		n, err := network.Open(d)
		if err != nil {
			return nil, err
		}
		m, err := n.Model()
		if err != nil {
			return nil, err
		}
		text, err := os.ReadFile(d.File(network.File)) // which the directory's seal does not cover
		if err != nil {
			return nil, err
		}
		return newGraphProgram(m, fingerprint([]byte(d.Fingerprint()), text), o)
	case onnx.Task:
		stack, _, err := onnx.Open(path)
		if err != nil {
			return nil, err
		}
		m, err := stack.Model(path, &onnx.ExportOptions{State: stack.RNN.Directions() == 1})
		if err != nil {
			return nil, err
		}
		return newGraphProgram(m, d.Fingerprint(), o)
	}
	k := s.taskOf(d)
	if k == nil {
		return nil, &model.FileError{File: path, Problem: fmt.Sprintf("a model for task %q, which this version does not have", d.Task), Fix: "use a newer carousel"}
	}
	m, err := k.Open(d)
	if err != nil {
		return nil, err
	}
	return newTaskProgram(m, d.Fingerprint())
}

// fingerprint is a hash of contents.
func fingerprint(parts ...[]byte) string {
	h := sha256.New()
	for _, b := range parts {
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))
}
