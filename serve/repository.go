package serve

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
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
	"github.com/carousel-ml/carousel/quantize"
	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
	"github.com/carousel-ml/carousel/tensor"
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

	place string // in a configuration file; "": none
}

// same reports whether two models are served in the same way.
func (c ModelConfig) same(other ModelConfig) bool {
	c.place, other.place = "", ""
	return reflect.DeepEqual(c, other)
}

// repository is the models of a server, by name.
type repository struct {
	mu      sync.RWMutex
	entries map[string]*entry
	loads   map[string]*loads
}

// loads is what there is once for a name, whatever entry it has.
type loads struct {
	one       sync.Mutex    // held while the entry's versions are opened and replaced
	good, bad atomic.Uint64 // loads in all, also the first one
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
	failed   bool       // the reason is a load that failed
}

// told returns the reason for those who send requests: that of a load that failed names files
// of this machine, and is for the index and the log.
func (e *entry) told() string {
	if e.failed {
		return "it could not be loaded; the index of the repository and the server's log tell why"
	}
	return cmp.Or(e.reason, "it is unloaded")
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
	seal         atomic.Pointer[seal] // of its files as they were read
}

func (v *version) program() batch.Program { return v.q.Program }

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

// of returns what there is once for a name.
func (r *repository) of(name string) *loads {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.loads == nil {
		r.loads = map[string]*loads{}
	}
	if r.loads[name] == nil {
		r.loads[name] = &loads{}
	}
	return r.loads[name]
}

// swap puts an entry in the place of old, unless another has it by now.
func (r *repository) swap(old, e *entry) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.entries[e.name] != old {
		return false
	}
	r.entries[e.name] = e
	return true
}

// unload puts an entry without versions in the place of one, or nothing with forget, and
// returns the one before; nil if there is none.
func (r *repository) unload(name string, forget bool) *entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.entries[name]
	switch {
	case old == nil:
	case forget:
		delete(r.entries, name)
	default:
		r.entries[name] = old.unloaded()
	}
	return old
}

// unloaded is an entry as it is after a client has unloaded it.
func (e *entry) unloaded() *entry {
	return &entry{name: e.name, c: e.c, pipeline: e.pipeline, reason: "it was unloaded"}
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
		return e, nil, inference.Errorf(inference.Unavailable, "model %q is not ready: %s", name, e.told())
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
	why := ""
	if e.reason != "" {
		why = "; not all that it was given are served: " + e.told()
	}
	return e, nil, inference.Errorf(inference.NotFound, "model %q has no version %q: it has %s%s", name, number, strings.Join(have, ", "), why)
}

// names lists the models for messages.
func (s *Server) names() string { return namesOf(s.models.list()) }

func namesOf(list []*entry) string {
	var names []string
	for _, e := range list {
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
		return placed(c.place, fmt.Errorf("two models have the name %q; give one another name with PATH=NAME", c.Name))
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
// the error says why, and in its place the one of its number that was served before, or
// else the next older one that opens, is served.
func (s *Server) Load(ctx context.Context, name string) error { return s.renew(ctx, name, true) }

// renew loads a model: all its versions anew, or else those whose files have changed.
func (s *Server) renew(ctx context.Context, name string, anew bool) error {
	if s.models.get(name) == nil { // of which nothing is to be kept
		return inference.Errorf(inference.NotFound, "unknown model %q: the server has %s", name, s.names())
	}
	l := s.models.of(name)
	l.one.Lock()
	defer l.one.Unlock()
	e := s.models.get(name)
	switch {
	case e == nil:
		return inference.Errorf(inference.NotFound, "unknown model %q: the server has %s", name, s.names())
	case !anew && !e.wanted:
		return nil // it was unloaded meanwhile
	case e.pipeline != nil:
		if !s.models.swap(e, &entry{name: name, pipeline: e.pipeline, wanted: true}) {
			return unloadedMeanwhile(name)
		}
		return nil
	}
	versions, err := s.open(ctx, e, anew)
	if err != nil && ctx.Err() != nil && len(e.versions) > 0 {
		return err // of whoever asked for it, not of the model
	}
	next := &entry{name: name, c: e.c, versions: versions, wanted: true}
	if err != nil {
		next.reason, next.failed = err.Error(), true
	}
	if !s.models.swap(e, next) {
		for _, v := range versions {
			if !slices.Contains(e.versions, v) {
				_ = v.q.Close(ctx) // it was never used
			}
		}
		return unloadedMeanwhile(name)
	}
	s.replaced(e.versions, next)
	if err != nil {
		l.bad.Add(1)
		s.log.Error("a model cannot be loaded", "model", name, "reason", next.reason, "serving", numbersOf(versions))
		return inference.Errorf(inference.Invalid, "model %q: %v", name, err)
	}
	l.good.Add(1)
	if e.reason != "" && len(e.versions) > 0 {
		s.settled(next)
	}
	return nil
}

func unloadedMeanwhile(name string) error {
	return inference.Errorf(inference.Unavailable, "model %q was unloaded while it was being loaded", name)
}

// replaced logs what versions of a model are new, and retires those of old that it has not.
func (s *Server) replaced(old []*version, e *entry) {
	for _, v := range e.versions {
		if !slices.Contains(old, v) {
			s.log.Info("a model is loaded", "model", e.name, "version", v.number, "platform", v.program().Platform(), "batched", v.program().Batched())
		}
	}
	for _, v := range old {
		if !slices.Contains(e.versions, v) {
			s.log.Info("a version is replaced", "model", e.name, "version", v.number)
			s.retire(v)
		}
	}
}

// settled logs that all of a model is served again.
func (s *Server) settled(e *entry) {
	s.log.Info("a model is as its files are", "model", e.name, "serving", numbersOf(e.versions))
}

// numbersOf lists versions for people.
func numbersOf(list []*version) string {
	numbers := make([]string, 0, len(list))
	for _, v := range list {
		numbers = append(numbers, v.number)
	}
	return cmp.Or(strings.Join(numbers, ", "), "none")
}

// Unload takes a model from service: its sessions end, requests that are accepted are
// answered. With forget its name is free again.
func (s *Server) Unload(ctx context.Context, name string, forget bool) error {
	e := s.models.unload(name, forget) // also of a model that is being loaded, which then ends unused
	if e == nil {
		return inference.Errorf(inference.NotFound, "unknown model %q: the server has %s", name, s.names())
	}
	return s.dismiss(ctx, e)
}

// dismiss ends the sessions of an entry that is no longer served, and closes its versions, and
// those before them that went on with their sessions, when what they have accepted is answered.
func (s *Server) dismiss(ctx context.Context, e *entry) error {
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
	for _, v := range e.versions {
		v.retired.Store(true)
	}
	queues := slices.DeleteFunc(s.sched.Queues(), func(q *batch.Queue) bool {
		v, ok := q.Owner.(*version)
		return !ok || v.name != e.name || !v.retired.Load()
	})
	for _, q := range queues {
		s.sessions.EndAll(q, batch.Unloaded)
	}
	var first error
	for _, q := range queues {
		first = cmp.Or(first, q.Close(ctx))
		s.sessions.EndAll(q, batch.Unloaded) // of which one may have been opened meanwhile
	}
	return first
}

// retire closes a version that another has replaced, with its last session.
func (s *Server) retire(v *version) {
	v.retired.Store(true)
	v.q.CloseUnused()
}

// sessionEnded is told of the end of each session, with the scheduler's lock held.
func (s *Server) sessionEnded(n *batch.Session, why batch.Reason) {
	if why != batch.Ended {
		s.log.Info("a session is over", "model", n.Model(), "reason", string(why))
	}
	if v, ok := n.Queue().Owner.(*version); ok {
		v.meter.over(why)
		if v.retired.Load() {
			go v.q.CloseUnused()
		}
	}
}

// open returns the versions of a model that are to be served, the newest first. It opens
// them all anew, or else keeps those of the entry whose files are as they were read. err
// says why a version does not open; what is served in its place is among the versions.
func (s *Server) open(ctx context.Context, e *entry, anew bool) (list []*version, err error) {
	sources, err := sourcesOf(e.c)
	if err != nil {
		return e.versions, err
	}
	var fresh []*version
	for _, src := range sources {
		if len(list) == max(1, e.c.Versions) {
			break
		}
		var had *version
		if i := slices.IndexFunc(e.versions, func(v *version) bool { return v.number == src.number }); i >= 0 {
			had = e.versions[i]
		}
		is := sealOf(src.dir) // before it is read
		if had != nil && !anew && had.seal.Load().same(is) {
			list = append(list, had)
			continue
		}
		v, bad := s.openOne(ctx, e.c, src)
		switch {
		case bad == nil && had != nil && !anew && v.program().Fingerprint() == had.program().Fingerprint():
			_ = v.q.Close(ctx) // it was never used, and is equal
			had.seal.Store(is)
			v = had
		case bad == nil:
			v.seal.Store(is)
			fresh = append(fresh, v)
		case ctx.Err() != nil:
			for _, v := range fresh {
				_ = v.q.Close(ctx) // it was never used
			}
			return e.versions, ctx.Err()
		default:
			if src.numbered {
				bad = fmt.Errorf("version %s: %w", src.number, bad)
			}
			err = cmp.Or(err, bad) // that of the newest
			v = had
		}
		if v != nil {
			list = append(list, v)
		}
	}
	if len(list) == 0 {
		return e.versions, err
	}
	return list, err
}

// source is where a version of a model lies.
type source struct {
	number    string
	path, dir string // what is opened, and what is watched
	numbered  bool   // it is one of a directory of versions
}

// sourcesOf returns the versions that there are of a model, the newest first.
func sourcesOf(c ModelConfig) ([]source, error) {
	numbers, err := versionsIn(c.Path)
	if err != nil {
		return nil, err
	}
	if numbers == nil {
		return []source{{number: "1", path: c.Path, dir: c.Path}}, nil
	}
	var list []source
	for _, n := range numbers {
		src := source{number: strconv.Itoa(n), numbered: true}
		src.dir = filepath.Join(c.Path, src.number)
		src.path = src.dir
		if file := filepath.Join(src.dir, "model.onnx"); isFile(file) {
			src.path = file
		}
		list = append(list, src)
	}
	return list, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func isDir(path string) bool { // or a link to one
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
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
		if n, err := strconv.Atoi(f.Name()); err == nil && n > 0 && strconv.Itoa(n) == f.Name() && isDir(filepath.Join(path, f.Name())) {
			numbers = append(numbers, n)
		}
		if f.Name() == model.ConfigFile {
			return nil, nil
		}
	}
	slices.SortFunc(numbers, func(a, b int) int { return b - a })
	return numbers, nil
}

// openOne opens a version and runs it once.
func (s *Server) openOne(ctx context.Context, c ModelConfig, src source) (*version, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, err := s.program(c, src.path)
	if err == nil {
		err = labelsFit(c.Labels, p.Outputs())
	}
	if err != nil {
		return nil, err
	}
	s.warm(ctx, c.Name, p)
	return s.newVersion(c, src.number, p), nil
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
	o.Log, o.Owner = s.log, v
	told := o.OnBatch
	o.OnBatch = func(rows int, took time.Duration) {
		v.meter.batch(rows, took)
		if told != nil {
			told(rows, took)
		}
	}
	v.q = s.sched.Add(p, o)
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
		m, err := graph.Parse(path, b) // these bytes, which the fingerprint is of
		if err != nil {
			return nil, err
		}
		parts := [][]byte{b}
		for _, name := range m.External() { // which graph.Read has found beside it
			b, err := os.ReadFile(filepath.Join(filepath.Dir(path), filepath.FromSlash(name)))
			if err != nil {
				return nil, err
			}
			parts = append(parts, b)
		}
		return newGraphProgram(m, fingerprint(parts...), o)
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
	var on []*tensor.Device
	if s.o.Device != nil {
		on = append(on, s.o.Device)
	}
	r, err := quantize.ReportOf(d)
	if err != nil {
		return nil, err
	}
	if text := r.Here(); text != "" {
		s.log.Warn(text, "model", path)
	}
	m, err := k.Open(d, on...)
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
