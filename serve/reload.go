package serve

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// following is what a server knows of a configuration file that it follows.
type following struct {
	one     sync.Mutex // held while a configuration is taken
	on      atomic.Bool
	current atomic.Bool // what runs is what the file says
}

// FollowConfig reads the configuration again until ctx ends: when its files have changed, and
// not changed again during the next interval, and at once when now is told. c is what the
// server was started with, of [ReadConfig], and read returns it as it is then, with the
// same flags. every is the time between looks; 0 or below: there are none.
//
// A configuration is taken as a whole, or not at all: if it is wrong, or a model that is new
// in it does not open, what runs goes on, the reason is in the log, and it is tried again
// when the files change, and after increasing times otherwise. Of one that is taken all
// models and pipelines change at once, after the new ones were opened: sessions of a model
// that is served in another way go on as they began, those of models that are gone end, as
// do those of pipelines that have changed, and what is as before is not touched. Models
// that a client has unloaded remain so. The limits change but that of bodies; what else has
// changed needs a restart, and is in the log.
func (s *Server) FollowConfig(ctx context.Context, c *Config, every time.Duration, now <-chan os.Signal, read func() (*Config, error)) {
	var tick <-chan time.Time
	if every > 0 {
		t := time.NewTicker(every)
		defer t.Stop()
		tick = t.C
	}
	s.config.current.Store(true)
	s.config.on.Store(true)
	began, files := c, c.seal.names
	tried, seen := c.seal, c.seal
	var wait time.Duration
	var again time.Time // when one that was refused is tried again; zero: none was
	for {
		asked := false
		select {
		case <-ctx.Done():
			return
		case <-now:
			asked = true
		case <-tick:
		}
		is := filesSeal(files...)
		still := is.same(seen)
		seen = is
		due := !is.same(tried) || !again.IsZero() && time.Now().After(again)
		if !asked && !(still && due) {
			continue
		}
		if !is.same(tried) {
			wait = 0
		}
		tried = is
		next, err := read()
		if err == nil {
			err = s.reconfigure(ctx, c, next)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.config.current.Store(false)
			wait = min(max(8*every, 2*wait), mostWait)
			again = time.Now().Add(wait)
			s.log.Error("the configuration is not taken, what runs goes on", "reason", err.Error())
			continue
		}
		wait, again = 0, time.Time{}
		c, files, tried, seen = next, next.seal.names, next.seal, next.seal
		pending := restartKeys(began, next)
		s.config.current.Store(pending == nil)
		s.log.Info("the configuration was read again", "file", files[0], "models", len(next.Models), "pipelines", len(next.Pipelines))
		if pending != nil {
			s.log.Warn("the configuration needs a restart: these keys differ from what runs", "keys", strings.Join(pending, ", "))
		}
	}
}

// restartKeys returns the keys that a running server cannot follow and that differ.
func restartKeys(was, is *Config) (keys []string) {
	for _, one := range []struct {
		key     string
		differs bool
	}{
		{"http", was.HTTP != is.HTTP},
		{"grpc", was.GRPC != is.GRPC},
		{"hosts", !slices.Equal(was.Hosts, is.Hosts)},
		{"device", was.Device != is.Device},
		{"drain", was.Drain != is.Drain},
		{"limits.body", was.Limits.filled().Body != is.Limits.filled().Body}, // gRPC's door has it from its start
		{"tokens", was.Tokens != is.Tokens},
		{"tls.certificate", was.Certificate != is.Certificate},
		{"tls.key", was.Key != is.Key},
		{"tls.clients", was.Clients != is.Clients},
		{"watch", was.Watch != is.Watch},
		{"store", was.Store != is.Store},
		{"traces.otlp", was.Traces != is.Traces},
		{"traces.ratio", was.TraceRatio != is.TraceRatio},
		{"log_requests", was.LogRequests != is.LogRequests},
		{"profiles", was.Profiles != is.Profiles},
	} {
		if one.differs {
			keys = append(keys, one.key)
		}
	}
	return keys
}

// change is an entry that a configuration adds, replaces or takes away.
type change struct {
	name  string
	place string // in the file
	next  *entry // nil: it is taken away
	old   *entry // nil: it is new
}

// reconfigure makes the models, pipelines and limits those of next, or leaves all as it is
// with an error. was is the configuration before.
func (s *Server) reconfigure(ctx context.Context, was, next *Config) error {
	s.config.one.Lock()
	defer s.config.one.Unlock()
	changes, err := s.changes(was, next)
	if err != nil {
		return err
	}
	for i := range changes { // in the order of names: nothing else holds several
		one := &s.models.of(changes[i].name).one
		one.Lock()
		defer one.Unlock()
	}
	for i := range changes {
		if err = s.openChange(ctx, &changes[i]); err != nil {
			break
		}
	}
	if err == nil {
		err = checkPipelines(s.models.list(), changes, next.Pipelines)
	}
	if err != nil {
		for _, ch := range changes {
			if ch.next != nil {
				closeUnused(ctx, ch.next.versions)
			}
		}
		return err
	}
	unused := s.models.commit(changes)
	closeUnused(ctx, unused)
	s.changed(changes)

	limits := next.Limits
	limits.Body = s.limits().Body
	s.sessions.SetOptions(limits.Sessions)
	s.limited.Store(limits.filled())
	return nil
}

// changes returns what differs between the models and pipelines that the server has and
// those of a configuration, by name. Nothing is opened yet.
func (s *Server) changes(was, next *Config) (list []change, err error) {
	named := map[string]bool{} // by the configuration
	own := map[string]bool{}   // of the one before
	for _, m := range was.Models {
		own[cmp.Or(m.Name, nameOf(m.Path))] = true
	}
	for _, p := range was.Pipelines {
		own[p.Name] = true
	}
	add := func(e *entry, place string, same func(old *entry) bool) error {
		if err := checkName(e.name); err != nil {
			return placed(place, err)
		}
		old := s.models.get(e.name)
		if named[e.name] || old != nil && !own[e.name] {
			return placed(place, fmt.Errorf("two models have the name %q; give one another name", e.name))
		}
		named[e.name] = true
		if old == nil || !same(old) {
			list = append(list, change{name: e.name, place: place, next: e})
		}
		return nil
	}
	for _, m := range next.Models {
		m.Name = cmp.Or(m.Name, nameOf(m.Path))
		if err := add(&entry{name: m.Name, c: m, wanted: true}, m.place, func(old *entry) bool { return old.pipeline == nil && old.c.same(m) }); err != nil {
			return nil, err
		}
	}
	for _, p := range next.Pipelines {
		if err := add(&entry{name: p.Name, pipeline: &pipeline{p}, wanted: true}, p.place, func(old *entry) bool { return old.pipeline != nil && old.pipeline.c.same(p) }); err != nil {
			return nil, err
		}
	}
	for name := range own {
		if !named[name] && s.models.get(name) != nil {
			list = append(list, change{name: name})
		}
	}
	slices.SortFunc(list, func(a, b change) int { return cmp.Compare(a.name, b.name) })
	return list, nil
}

// openChange opens the versions of a model that is added or replaced, whose lock is held. One
// that a client has unloaded is not opened.
func (s *Server) openChange(ctx context.Context, ch *change) error {
	ch.old = s.models.get(ch.name)
	if ch.next == nil || ch.next.pipeline != nil || ch.old != nil && !ch.old.wanted {
		return nil
	}
	versions, err := s.open(ctx, &entry{name: ch.name, c: ch.next.c}, true)
	if len(versions) == 0 {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.models.of(ch.name).bad.Add(1)
		return placed(ch.place, fmt.Errorf("model %q: %w", ch.name, err))
	}
	ch.next.versions = versions
	if err != nil { // of a version beside those
		ch.next.reason, ch.next.failed = err.Error(), true
	}
	return nil
}

// checkPipelines checks pipelines against the models as they would be.
func checkPipelines(models []*entry, changes []change, pipelines []PipelineConfig) error {
	models = slices.DeleteFunc(models, func(e *entry) bool {
		return slices.ContainsFunc(changes, func(ch change) bool { return ch.name == e.name })
	})
	for _, ch := range changes {
		if ch.next != nil {
			models = append(models, ch.next)
		}
	}
	slices.SortFunc(models, func(a, b *entry) int { return cmp.Compare(a.name, b.name) })
	for i := range pipelines {
		if err := pipelines[i].check(models); err != nil {
			return err
		}
	}
	return nil
}

// commit puts all changes in place at once. Versions of models that a client has unloaded
// meanwhile are returned, and not served.
func (r *repository) commit(changes []change) (unused []*version) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range changes {
		ch := &changes[i]
		ch.old = r.entries[ch.name] // which is as it was when it was opened, or unloaded
		switch {
		case ch.next == nil:
			delete(r.entries, ch.name)
			continue
		case ch.old != nil && !ch.old.wanted:
			unused = append(unused, ch.next.versions...)
			ch.next = ch.next.unloaded()
		}
		r.entries[ch.name] = ch.next
	}
	return unused
}

// changed ends what changes have replaced, and tells the log.
func (s *Server) changed(changes []change) {
	for _, ch := range changes {
		if ch.next != nil && ch.next.pipeline == nil && len(ch.next.versions) > 0 {
			s.models.of(ch.name).good.Add(1)
		}
		switch {
		case ch.next == nil:
			s.log.Info("a model is gone from the configuration", "model", ch.name)
		case ch.next.pipeline != nil:
			s.log.Info("a pipeline is served", "model", ch.name)
		}
		var goesOn []*version // for their sessions
		switch {
		case ch.old == nil:
		case ch.next != nil && ch.next.pipeline == nil && ch.old.pipeline == nil:
			goesOn = ch.old.versions
		default:
			go func() { _ = s.dismiss(context.Background(), ch.old) }() // which waits for its requests, without an error
		}
		if ch.next != nil {
			s.replaced(goesOn, ch.next)
		}
	}
}

// closeUnused closes versions that no request has reached.
func closeUnused(ctx context.Context, versions []*version) {
	for _, v := range versions {
		_ = v.q.Close(ctx)
	}
}
