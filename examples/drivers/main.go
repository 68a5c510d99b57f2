// Drivers writes tables in which a target follows from other columns, as a CSV file
// on standard output: the recipes basins.yaml and engines.yaml are tried on them.
//
//	go run ./examples/drivers basins > basins.csv
//	go run ./examples/drivers engines > engines.csv
//	go run ./examples/drivers engines 2 > others.csv
//
// The number is the seed, by default 1: other basins, other engines.
package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"time"
)

func main() {
	log.SetFlags(0)
	tables := map[string]func(io.Writer, *rand.Rand){"basins": basins, "engines": engines}
	if len(os.Args) < 2 || len(os.Args) > 3 || tables[os.Args[1]] == nil {
		log.Fatal("usage: drivers basins|engines [SEED]")
	}
	seed := uint64(1)
	if len(os.Args) == 3 {
		var err error
		if seed, err = strconv.ParseUint(os.Args[2], 10, 64); err != nil {
			log.Fatalf("drivers: want a whole number as seed, got %q", os.Args[2])
		}
	}
	w := bufio.NewWriter(os.Stdout)
	tables[os.Args[1]](w, rand.New(rand.NewPCG(seed, 0)))
	if err := w.Flush(); err != nil {
		log.Fatal(err)
	}
}

// basins writes twelve years of days of twenty basins. The share of rain that runs
// off grows with the water in the soil, which evaporates; what runs off passes a fast
// linear reservoir, and what seeps away a slow one. A basin differs from others by
// its soil and its reservoirs, which its static columns describe.
func basins(w io.Writer, r *rand.Rand) {
	fmt.Fprintln(w, "date,basin,rain,temperature,evaporation,soil,shape,fast,slow,runoff")
	begin := time.Date(1990, 10, 1, 0, 0, 0, 0, time.UTC)
	for basin := range 20 {
		capacity, shape := 80+150*r.Float64(), 1.5+2*r.Float64()
		fast, slow := 0.2+0.4*r.Float64(), 0.01+0.04*r.Float64()
		warmth, wetness := 6+8*r.Float64(), 0.25+0.15*r.Float64()
		soil, quick, ground, rains := capacity/2, 0.0, 20.0, false
		for t := range 12 * 365 {
			date := begin.AddDate(0, 0, t)
			temperature := warmth + 9*math.Cos(2*math.Pi*float64(date.YearDay()-200)/365.25) + 3*r.NormFloat64()
			evaporation := math.Max(0, 0.2*(temperature+3))
			chance := wetness
			if rains {
				chance = 0.6
			}
			rain := 0.0
			if rains = r.Float64() < chance; rains {
				rain = 7 * r.ExpFloat64()
			}
			excess := rain * math.Pow(soil/capacity, shape)
			soil = math.Min(capacity, soil+rain-excess)
			soil -= math.Min(soil, evaporation*soil/capacity)
			seeps := 0.02 * soil
			soil -= seeps
			quick, ground = quick+excess, ground+seeps
			runoff := fast*quick + slow*ground
			quick, ground = (1-fast)*quick, (1-slow)*ground
			fmt.Fprintf(w, "%s,b%02d,%.2f,%.2f,%.2f,%.1f,%.2f,%.3f,%.4f,%.4f\n", date.Format(time.DateOnly), basin+1,
				rain, temperature, evaporation, capacity, shape, fast, slow, runoff*math.Exp(0.03*r.NormFloat64()))
		}
	}
}

// engines writes the lives of a hundred engines, cycle by cycle. Wear grows faster
// the more there is of it, at a rate of each engine's own, and shows in sensors, which
// also follow the load of the cycle, with noise. The target is the number of cycles
// left, at most 125, as is usual: before, nothing shows.
func engines(w io.Writer, r *rand.Rand) {
	fmt.Fprintln(w, "engine,cycle,load,heat,pressure,speed,flow,left")
	for engine := range 100 {
		wear, rate := 0.01+0.03*r.Float64(), 0.015+0.02*r.Float64()
		var lines []string
		for cycle := 1; wear < 1; cycle++ {
			load := 0.5 + 0.5*r.Float64()
			wear *= 1 + rate*math.Exp(0.3*r.NormFloat64())
			lines = append(lines, fmt.Sprintf("e%03d,%d,%.3f,%.2f,%.3f,%.1f,%.3f", engine+1, cycle, load,
				600+40*load+25*wear*wear+2*r.NormFloat64(), 30-4*load-3*wear+0.4*r.NormFloat64(),
				9000+500*load+90*math.Sqrt(wear)+15*r.NormFloat64(), 8+load-wear*load+0.15*r.NormFloat64()))
		}
		for i, line := range lines {
			fmt.Fprintf(w, "%s,%d\n", line, min(125, len(lines)-1-i))
		}
	}
}
