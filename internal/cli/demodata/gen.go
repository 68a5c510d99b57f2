//go:build ignore

// Gen packs the demo's CSV for embedding, after checking that it is what the
// demo counts on. In this directory: go run gen.go IN.csv vic_elec.csv.gz
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"fmt"
	"log"
	"os"
	"slices"
	"strconv"
	"time"
)

var header = []string{"time", "demand_mw", "temperature_c", "holiday"}

// maxPacked bounds what the demo may add to the binary.
const maxPacked = 350 << 10

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: go run gen.go IN.csv OUT.csv.gz")
	}
	text, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	if err := check(text); err != nil {
		log.Fatalf("%s: %v", os.Args[1], err)
	}
	var packed bytes.Buffer
	w, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if _, err := w.Write(text); err != nil {
		log.Fatal(err)
	}
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}
	if packed.Len() > maxPacked {
		log.Fatalf("%d bytes packed, want at most %d", packed.Len(), maxPacked)
	}
	if err := os.WriteFile(os.Args[2], packed.Bytes(), 0o644); err != nil {
		log.Fatal(err)
	}
}

// check holds the table to one row an hour and numbers everywhere.
func check(text []byte) error {
	rows, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil {
		return err
	}
	if !slices.Equal(rows[0], header) {
		return fmt.Errorf("columns %q, want %q", rows[0], header)
	}
	var last time.Time
	for i, row := range rows[1:] {
		at, err := time.Parse(time.RFC3339, row[0])
		if err != nil {
			return fmt.Errorf("line %d: %w", i+2, err)
		}
		if i > 0 && at.Sub(last) != time.Hour {
			return fmt.Errorf("line %d: %v after the line before, want 1h", i+2, at.Sub(last))
		}
		last = at
		for _, field := range row[1:] {
			if _, err := strconv.ParseFloat(field, 64); err != nil {
				return fmt.Errorf("line %d: %w", i+2, err)
			}
		}
	}
	return nil
}
