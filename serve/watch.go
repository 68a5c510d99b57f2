package serve

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
	"github.com/carousel-ml/carousel/task"
)

// Watch compares the files of the models with those that were loaded, once per interval
// (above 0), until ctx ends. Files that have changed, and not changed again during the next
// interval, are loaded: new versions, and those with other files. Versions whose files are
// gone are retired. Sessions continue in the version that they began in. If a version does
// not open, the one before it remains in service; the reason is in the index and the log, and
// it is tried again when its files change, and after increasing times otherwise. Models that
// a client has unloaded are not loaded.
//
// It polls, because network file systems and the volumes of containers do not always notify.
func (s *Server) Watch(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	all := map[string]*watched{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, e := range s.models.list() {
			if e.pipeline != nil || !e.wanted || ctx.Err() != nil {
				continue
			}
			w := all[e.name]
			if w == nil {
				w = &watched{}
				all[e.name] = w
			}
			s.look(ctx, e, w, every)
		}
	}
}

// Reload loads at once the models whose files differ from those that were loaded, as
// [Server.Watch] does.
func (s *Server) Reload(ctx context.Context) {
	for _, e := range s.models.list() {
		if e.pipeline != nil || !e.wanted || ctx.Err() != nil {
			continue
		}
		w := &watched{}
		for range 2 { // the files are still between the two looks
			s.look(ctx, e, w, 0)
		}
	}
}

// watched is what is known of a model's files.
type watched struct {
	seen  []sealed // at the last look
	tried []sealed // when they did not open
	wait  time.Duration
	again time.Time // when the same files are tried again
}

// sealed is a version's files, or, as number, why there are none.
type sealed struct {
	number string
	seal   *seal
}

func (a sealed) same(b sealed) bool { return a.number == b.number && a.seal.same(b.seal) }

// mostWait is the longest time between attempts at files that did not open, which may be
// for a reason that passes, such as a lack of memory.
const mostWait = 10 * time.Minute

// look compares a model's files with what is served of them.
func (s *Server) look(ctx context.Context, e *entry, w *watched, every time.Duration) {
	sources, err := sourcesOf(e.c)
	var now []sealed
	if err != nil {
		now = append(now, sealed{number: err.Error()})
	}
	most := min(len(sources), max(1, e.c.Versions))
	current := err == nil && len(e.versions) == most
	for i, src := range sources {
		at := slices.IndexFunc(e.versions, func(v *version) bool { return v.number == src.number })
		if i >= most && at < 0 {
			continue
		}
		is := sealed{src.number, sealOf(src.dir)}
		now = append(now, is)
		current = current && i < most && at >= 0 && e.versions[at].seal.Load().same(is.seal)
	}
	still := slices.EqualFunc(now, w.seen, sealed.same)
	w.seen = now
	switch {
	case current:
		w.tried, w.wait = nil, 0
		s.settle(e)
	case !still:
	case w.tried != nil && slices.EqualFunc(now, w.tried, sealed.same) && time.Now().Before(w.again):
	default:
		if s.renew(ctx, e.name, false) == nil {
			w.tried, w.wait = nil, 0
			return
		}
		w.tried, w.wait = now, min(max(8*every, 2*w.wait), mostWait)
		w.again = time.Now().Add(w.wait)
	}
}

// settle clears the reason of a model that is served as its files are, for example after files
// that did not open are gone.
func (s *Server) settle(e *entry) {
	l := s.models.of(e.name)
	if e.reason == "" || !l.one.TryLock() {
		return // it is being loaded
	}
	defer l.one.Unlock()
	settled := *e
	settled.reason, settled.failed = "", false
	if !s.models.swap(e, &settled) {
		return
	}
	s.settled(&settled)
}

// seal identifies the files of a version without reading them.
type seal struct {
	names []string
	infos []os.FileInfo
}

// filesSeal returns the seal of files, of which some may not exist.
func filesSeal(paths ...string) *seal {
	s := &seal{}
	for _, path := range paths {
		s.add(path)
	}
	return s
}

// add adds a file, if it exists.
func (s *seal) add(path string) {
	if info, err := os.Stat(path); err == nil && path != "" {
		s.names, s.infos = append(s.names, path), append(s.infos, info)
	}
}

// follow calls f whenever files have changed and then been still from one look to the
// next, until ctx ends. was is their seal as they were read.
func follow(ctx context.Context, every time.Duration, was *seal, is func() *seal, f func()) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	seen := was
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := is()
		if still := now.same(seen); still && !now.same(was) {
			was = now
			f()
		}
		seen = now
	}
}

// sealOf returns the seal of a directory, which is of the files in it, or of a file, which
// is of it and of files beside it whose names begin with its own without the suffix, as
// those of external data do.
func sealOf(path string) *seal {
	s := &seal{}
	dir, stem := path, ""
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		dir, stem = filepath.Split(path)
		stem = strings.TrimSuffix(stem, filepath.Ext(stem))
		dir = filepath.Clean(dir)
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return s // as of no files
	}
	for _, f := range list {
		if !strings.HasPrefix(f.Name(), stem) {
			continue
		}
		info, err := os.Stat(filepath.Join(dir, f.Name())) // behind links
		if err == nil && info.Mode().IsRegular() {
			s.names, s.infos = append(s.names, f.Name()), append(s.infos, info)
		}
	}
	return s
}

// same reports whether two seals are of the same files, unchanged by all that the system says
// of them.
func (s *seal) same(other *seal) bool {
	if s == nil || other == nil {
		return s == other
	}
	return slices.Equal(s.names, other.names) && slices.EqualFunc(s.infos, other.infos, func(a, b os.FileInfo) bool {
		return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
	})
}

// warming is a program with requests for it to be tried with; the first that succeeds is
// enough.
type warming interface {
	trials() []*batch.Job
}

// warm runs a program once before it is served, so that its weights are packed and its
// memory is there when the first request comes. The inputs are guesses: that a program
// refuses them is no fault.
func (s *Server) warm(ctx context.Context, name string, p batch.Program) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("a model failed in the trial before it is served", "model", name, "problem", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	w, ok := p.(warming)
	if !ok {
		return
	}
	began := time.Now()
	for _, j := range w.trials() {
		if j.Err = p.Check(j); j.Err == nil {
			p.Run(ctx, []*batch.Job{j})
		}
		if j.Err == nil {
			s.log.Debug("a model was tried before it is served", "model", name, "took", time.Since(began))
			return
		}
	}
	s.log.Debug("no trial of a model before it is served succeeded", "model", name, "took", time.Since(began))
}

// mostTrial is the number of elements of a trial's input.
const mostTrial = 1 << 20

// trials returns random inputs. A graph whose rows are computed together was tried when its
// batch dimension was looked for.
func (p *graphProgram) trials() (list []*batch.Job) {
	if p.batched {
		return nil
	}
	for _, t := range trials {
		if !p.fits(t.free) {
			continue
		}
		j := &batch.Job{Inputs: p.random(rand.New(rand.NewPCG(1, 2)), 1, t.free, t.ints)}
		for i := range j.Inputs {
			if p.ins[i].State {
				j.Inputs[i] = inference.Value{}
			}
		}
		list = append(list, j)
	}
	return list
}

// fits reports whether inputs with these free dimensions are small enough for a trial.
func (p *graphProgram) fits(free int) bool {
	for _, in := range p.ins {
		n := 1
		for _, d := range in.Dims {
			if d < 0 {
				d = free
			}
			if d > 0 && n > mostTrial/d {
				return false
			}
			n *= max(d, 1)
		}
	}
	return true
}

// trials returns a text, a second of silence, or tables of hours.
func (p *taskProgram) trials() (list []*batch.Job) {
	add := func(give func(j *batch.Job)) {
		o, err := p.Options(nil)
		if err != nil {
			return
		}
		j := &batch.Job{Options: o, Inputs: make([]inference.Value, len(p.ins))}
		give(j)
		list = append(list, j)
	}
	one := func(text string) inference.Value { return inference.Value{Dims: []int{1}, Texts: []string{text}} }
	switch form := p.m.Kind.Input(); {
	case form == task.TextForm && p.texts >= 0:
		add(func(j *batch.Job) { j.Inputs[p.texts] = one("One text, as good as any other.") })
	case form == task.SoundForm && p.sounds >= 0:
		for _, rate := range []int{16000, 8000, 44100} {
			var b bytes.Buffer
			if audio.WriteWAV(&b, &audio.Sound{Rate: rate, Samples: make([]float32, rate)}) == nil {
				add(func(j *batch.Job) { j.Inputs[p.sounds] = one(b.String()) })
			}
		}
	case form == task.TableForm:
		for _, rows := range []int{64, 1024} {
			add(func(j *batch.Job) {
				timed := false // the first column of texts is that of times, if there is one
				for i, c := range p.service.Columns {
					v := inference.Value{Dims: []int{rows}}
					for k := range rows {
						switch {
						case c.Number:
							v.Doubles = append(v.Doubles, float64(k%24))
						case timed:
							v.Texts = append(v.Texts, "a")
						default:
							v.Texts = append(v.Texts, time.Date(2024, 1, 1, k, 0, 0, 0, time.UTC).Format(time.DateTime))
						}
					}
					timed = timed || !c.Number
					j.Inputs[i] = v
				}
			})
		}
	}
	return list
}
