package store

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carousel-ml/carousel/tune"
)

// benchStores are the addresses of new studies.
var benchStores = map[string]func(b *testing.B) string{
	"sqlite":   func(b *testing.B) string { return filepath.Join(b.TempDir(), "study.db") },
	"postgres": func(b *testing.B) string { return newPostgresStudy(b) },
}

// BenchmarkReport measures transitions per second of workers that do nothing else, each with a connection of its
// own. The tests' PostgreSQL does not wait for the disk, which SQLite does.
func BenchmarkReport(b *testing.B) {
	for name, address := range benchStores {
		for _, workers := range []int{1, 8} {
			b.Run(fmt.Sprintf("%s/%d", name, workers), func(b *testing.B) {
				address := address(b)
				stores := make([]tune.Store, workers)
				for w := range stores {
					s, err := Open(b.Context(), address, true)
					if err == nil {
						err = s.Add(b.Context(), running(w), time.Hour)
					}
					if err != nil {
						b.Fatal(err)
					}
					defer s.Close()
					stores[w] = s
				}
				var done atomic.Int64
				var wg sync.WaitGroup
				b.ResetTimer()
				for w, s := range stores {
					wg.Go(func() {
						for i := done.Add(1); i <= int64(b.N); i = done.Add(1) {
							// 20 points a piece, over and over
							if err := s.Report(b.Context(), w, 1, tune.Point{At: int(i % 20), Values: []float64{float64(i) / 7}}); err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "transitions/s")
			})
		}
	}
}

// BenchmarkCheckpoint keeps and restores 64 MiB.
func BenchmarkCheckpoint(b *testing.B) {
	blob := make([]byte, 64<<20)
	for name, address := range benchStores {
		b.Run(name, func(b *testing.B) {
			s, err := Open(b.Context(), address(b), true)
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			if err := s.Add(b.Context(), running(0), time.Hour); err != nil {
				b.Fatal(err)
			}
			var save, restore time.Duration
			for b.Loop() {
				began := time.Now()
				if err := s.Checkpoint(b.Context(), 0, 1, blob); err != nil {
					b.Fatal(err)
				}
				save += time.Since(began)
				began = time.Now()
				if got, err := s.Restore(b.Context(), 0, 0); err != nil || len(got) != len(blob) {
					b.Fatal(err)
				}
				restore += time.Since(began)
			}
			b.ReportMetric(save.Seconds()/float64(b.N), "s/save")
			b.ReportMetric(restore.Seconds()/float64(b.N), "s/restore")
		})
	}
}

// BenchmarkSize measures the file of 1,000 trials with 20 points each.
func BenchmarkSize(b *testing.B) {
	for b.Loop() {
		path := filepath.Join(b.TempDir(), fmt.Sprint(b.N), "study.db")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			b.Fatal(err)
		}
		s, err := Open(b.Context(), path, true)
		if err != nil {
			b.Fatal(err)
		}
		for n := range 1000 {
			p := running(n)
			p.Values = tune.Values{"lr": 0.012345678901234567, "hidden": 128, "cell": "lstm", "dropout": 1.0 / 3}
			if err := s.Add(b.Context(), p, time.Hour); err != nil {
				b.Fatal(err)
			}
			for at := range 20 {
				if err := s.Report(b.Context(), n, 1, tune.Point{At: at, Steps: 100 * at, Values: []float64{1 / float64(n+at+3)}}); err != nil {
					b.Fatal(err)
				}
			}
			p.Epoch, p.State, p.Result = 1, tune.Complete, []float64{1.0 / 3}
			if err := s.Finish(b.Context(), p, true); err != nil {
				b.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(info.Size()), "bytes/study")
	}
}
