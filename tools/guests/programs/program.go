// A Go program: goroutines, maps, SHA-256, floats.
package main

import (
	"crypto/sha256"
	"fmt"
	"math"
	"os"
	"sync"
)

func main() {
	var wait sync.WaitGroup
	var lock sync.Mutex
	sums := map[int]string{}
	for n := 0; n < 64; n++ {
		wait.Add(1)
		go func(n int) {
			defer wait.Done()
			sum := sha256.Sum256([]byte(fmt.Sprintf("%d %.6f", n, math.Sin(float64(n)))))
			lock.Lock()
			sums[n] = fmt.Sprintf("%x", sum[:4])
			lock.Unlock()
		}(n)
	}
	wait.Wait()
	if len(sums) != 64 || fmt.Sprintf("%.12f", math.Exp(1)) != "2.718281828459" {
		os.Exit(1)
	}
}
