package serve

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/serve/batch"
	"github.com/carousel-ml/carousel/serve/inference"
)

// filesOf lists the files of a store with sessions.
func filesOf(tb testing.TB, dir string) []string {
	tb.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "*"+storeSuffix+"*"))
	if err != nil {
		tb.Fatal(err)
	}
	return list
}

// TestStoreOfOneID ends a session while its step runs, and opens another of the same id:
// what is stored is the other's, also when the step ends last. Sessions then go on in
// another server, and files of writes that were not finished are taken away.
func TestStoreOfOneID(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	p := stepProgram(t, testWidth, testHidden, 1)
	g := &gated{graphProgram: p, began: make(chan struct{}, 1), letGo: make(chan struct{})}
	serve := func(program batch.Program) (*Server, *version) {
		s := New(Options{})
		t.Cleanup(func() { _ = s.Close(ctx) })
		return s, addProgram(s, "m", program)
	}
	s, v := serve(g)
	if _, _, err := s.OpenStore(ctx, dir); err != nil {
		t.Fatal(err)
	}
	open := func() *batch.Session {
		t.Helper()
		n, err := s.sessions.Open(v.q, "m", batch.Opening{ID: "one"})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	first := open()
	ended := make(chan error, 1)
	go func() { ended <- v.q.Do(ctx, stepJob(p, first, stepInput(1).Value)) }()
	<-g.began
	first.End(batch.Ended)
	open()
	fresh, err := os.ReadFile(s.store.file("m", "one"))
	if err != nil {
		t.Fatal("the second session is not stored: ", err)
	}
	close(g.letGo)
	if err := <-ended; err != nil {
		t.Error("the step that ran was not completed: ", err)
	}
	if now, err := os.ReadFile(s.store.file("m", "one")); err != nil || !slices.Equal(now, fresh) {
		t.Errorf("the first session's step changed what is stored of the second: %v", err)
	}
	if list := filesOf(t, dir); len(list) != 1 {
		t.Errorf("files %v, want one", list)
	}
	// The server is killed: its lock goes, and a file is left half written.
	s.store.release()
	if err := os.WriteFile(s.store.file("m", "one")+".7"+freshSuffix, fresh[:9], 0o600); err != nil {
		t.Fatal(err)
	}
	other, w := serve(p)
	if restored, lost, err := other.OpenStore(ctx, dir); restored != 1 || lost != 0 || err != nil {
		t.Fatalf("restored %d, lost %d, %v", restored, lost, err)
	}
	n, err := other.sessions.Find("m", "one")
	if err != nil {
		t.Fatal(err)
	}
	j := stepJob(p, n, stepInput(1).Value)
	if err := w.q.Do(ctx, j); err != nil {
		t.Fatal(err)
	}
	alone, err := other.Infer(ctx, &inference.Request{Model: "m", Inputs: []inference.Tensor{stepInput(1)}}, Caller{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := j.Outputs[w.outAt["y"]].Floats, output(t, alone, "y").Floats; !slices.Equal(got, want) {
		t.Errorf("the session goes on with %v, want as from its beginning %v", got, want)
	}
	n.End(batch.Ended)
	if list := filesOf(t, dir); len(list) != 0 {
		t.Errorf("files %v are left", list)
	}
}

// Sessions that others end while they are being opened were not refused by the store.
func TestStoreOfSessionsThatEnd(t *testing.T) {
	s := New(Options{})
	v := addProgram(s, "m", stepProgram(t, testWidth, testHidden, 1))
	defer s.Close(t.Context())
	if _, _, err := s.OpenStore(t.Context(), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				if _, err := s.sessions.Open(v.q, "m", batch.Opening{ID: "one"}); err != nil {
					if e := inference.AsError(err); e.Code != inference.Exists && e.Code != inference.NotFound {
						t.Errorf("%d: %v", e.Code, err)
					}
				}
				if n, err := s.sessions.Find("m", "one"); err == nil {
					n.End(batch.Ended)
				}
			}
		})
	}
	all.Wait()
}

// Files of sessions that cannot go on are set aside, with a line in the log, and are tried
// again under their own name. Old ones and more than some are removed.
func TestStoreSetsAside(t *testing.T) {
	ctx, dir := context.Background(), t.TempDir()
	p := stepProgram(t, testWidth, testHidden, 1)
	s := New(Options{})
	v := addProgram(s, "m", p)
	if _, _, err := s.OpenStore(ctx, dir); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"one", "two"} {
		n, err := s.sessions.Open(v.q, "m", batch.Opening{ID: id})
		if err != nil {
			t.Fatal(err)
		}
		if err := v.q.Do(ctx, stepJob(p, n, stepInput(1).Value)); err != nil {
			t.Fatal(err)
		}
	}
	one, two := s.store.file("m", "one"), s.store.file("m", "two")
	if err := s.Close(ctx); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(one)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(two, whole[:len(whole)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(dir, "old"+storeSuffix+asideSuffix)
	if err := os.WriteFile(old, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	before := time.Now().Add(-asideTime - time.Minute)
	if err := os.Chtimes(old, before, before); err != nil {
		t.Fatal(err)
	}

	other, log := serverOf(t) // without the model
	if restored, lost, err := other.OpenStore(ctx, dir); restored != 0 || lost != 2 || err != nil {
		t.Fatalf("restored %d, lost %d, %v", restored, lost, err)
	}
	if list := filesOf(t, dir); !slices.Equal(list, slices.Sorted(slices.Values([]string{one + asideSuffix, two + asideSuffix}))) {
		t.Errorf("files %v, want both set aside", list)
	}
	if kept, err := os.ReadFile(one + asideSuffix); err != nil || !slices.Equal(kept, whole) {
		t.Errorf("the file was changed: %v", err)
	}
	if text := log.String(); strings.Count(text, "its file is set aside") != 2 || !strings.Contains(text, one+asideSuffix) {
		t.Errorf("the log says %s", text)
	}
	other.store.release()

	if err := os.Rename(one+asideSuffix, one); err != nil {
		t.Fatal(err)
	}
	for i := range mostAside + 5 {
		path := filepath.Join(dir, fmt.Sprintf("%04d%s%s", i, storeSuffix, asideSuffix))
		at := time.Now().Add(-time.Duration(i+1) * time.Second)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	again := New(Options{})
	addProgram(again, "m", p)
	defer again.Close(ctx)
	if restored, lost, err := again.OpenStore(ctx, dir); restored != 1 || lost != 0 || err != nil {
		t.Fatalf("restored %d, lost %d, %v", restored, lost, err)
	}
	list := filesOf(t, dir)
	if len(list) != mostAside+1 || !slices.Contains(list, one) || !slices.Contains(list, two+asideSuffix) || slices.ContainsFunc(list, func(path string) bool { return strings.HasPrefix(filepath.Base(path), "1004.") }) {
		t.Errorf("%d files are left, want %d and the session", len(list), mostAside)
	}
}
