// Command scaling predicts what training on hundreds of nodes would be like, and checks its predictions
// where they can be measured.
//
//	go run ./bench/scaling                   # the tables and curves of docs/scaling.md
//	go run ./bench/scaling --measure         # this machine, into bench/scaling/measured.json
//	sudo go run ./bench/scaling --validate   # 2, 4 and 8 processes on links of 1 Gbit/s
//
// It simulates the schedule of package train: a step is a Gather of wishes and one of weights, the
// forward pass, the backward pass with gradients that become complete at measured moments, their sums in
// buckets as package dist makes them, a Gather of losses, clipping and the optimizer. Ranks draw batches
// of different lengths, nodes fail, checkpoints are written.
//
// --validate makes network namespaces named carousel-scaling-*; it needs root, ip and tc.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

type options struct {
	ranks         []int
	rounds, steps int
	rate          string
}

func main() {
	measures := flag.Bool("measure", false, "measure this machine and write bench/scaling/measured.json")
	validates := flag.Bool("validate", false, "measure processes in network namespaces beside what is predicted")
	sizes := flag.String("ranks", "2,4,8", "--validate: how many processes")
	var o options
	flag.IntVar(&o.rounds, "rounds", 5, "--validate: rounds of each case, of which the least and the median count")
	flag.IntVar(&o.steps, "steps", 12, "--validate: steps of a round")
	flag.StringVar(&o.rate, "rate", "1gbit", "--validate: the `rate` of a link in each direction, as tc writes it")
	dir := flag.String("svg", "docs", "the `folder` for the curves")
	rank := flag.String("rank", "", "used by the program itself")
	flag.Parse()
	for field := range strings.SplitSeq(*sizes, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 2 {
			usage("--ranks %q: expected numbers of 2 or more, such as 2,4,8", *sizes)
		}
		o.ranks = append(o.ranks, n)
	}
	if flag.NArg() > 0 || *measures && *validates || o.rounds < 1 || o.steps < 1 {
		usage("takes flags only, not both --measure and --validate; --rounds and --steps are 1 or more")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case *rank != "":
		err = serve(ctx, *rank, os.Stdin, os.Stdout)
	case *measures:
		err = measure(ctx, "bench/scaling/measured.json")
	case *validates:
		err = o.validate(ctx, os.Stdout)
	default:
		err = sweep(os.Stdout, *dir)
	}
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "scaling:", err)
		os.Exit(1)
	}
}

func usage(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "scaling: "+format+"\n", args...)
	os.Exit(2)
}
