// A small persistent pool of pinned threads. No OpenMP: a second OpenMP runtime beside torch's fights for the cores.
//
// Thread 0 is the caller; it is pinned for the call only and gets its own affinity back. Thread i runs on the i-th CPU
// that the caller may use, first one CPU of each core, then their siblings. Idle workers spin shortly (so that calls
// close to each other start within a microsecond) and then sleep on a futex.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <mutex>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <vector>
#if defined(__linux__)
#include <sched.h>
#endif

#include "isa.h"

namespace ridgeline {

inline void relax() {
#if RL_X86
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// How long a thread spins before it sleeps: waking one takes 50 to 70 microseconds. Told by the clock, because
// pauses differ: on an Intel Xeon one takes 12 ns, so that 500 ended before the next call came, which then took 70 us more.
constexpr std::chrono::microseconds SPIN{100};

// Waits until value differs from old.
inline void wait_while_equal(std::atomic<uint32_t>& value, uint32_t old) {
    const auto until = std::chrono::steady_clock::now() + SPIN;
    do {
        for (int i = 0; i < 16; ++i) {
            if (value.load(std::memory_order_acquire) != old) return;
            relax();
        }
    } while (std::chrono::steady_clock::now() < until);
    value.wait(old, std::memory_order_acquire);
}

#if defined(__linux__)
// One mask size for all: 8192 CPUs, the kernel's own limit.
struct Mask {
    static constexpr int CPUS = 8192;
    unsigned long bits[CPUS / (8 * sizeof(unsigned long))] = {};

    static constexpr int WORD = 8 * sizeof(unsigned long);
    bool has(int cpu) const { return bits[cpu / WORD] >> (cpu % WORD) & 1; }
    void add(int cpu) { bits[cpu / WORD] |= 1ul << (cpu % WORD); }
    bool operator==(const Mask& other) const = default;
    bool load() { return sched_getaffinity(0, sizeof bits, reinterpret_cast<cpu_set_t*>(bits)) == 0; }
    void apply() const { sched_setaffinity(0, sizeof bits, reinterpret_cast<const cpu_set_t*>(bits)); }
};

// The CPU that leads the core of this one, from the kernel's topology; the CPU itself where that is not published.
inline int core_leader(int cpu) {
    char path[96];
    std::snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    int leader = cpu;
    if (std::FILE* file = std::fopen(path, "r")) {
        if (std::fscanf(file, "%d", &leader) != 1) leader = cpu;
        std::fclose(file);
    }
    return leader;
}
#endif

class Pool {
public:
    using Job = void (*)(const void* context, int thread, int threads);

    // The pool of this library and process. It is never destroyed (its threads sleep until the process ends), and a
    // forked child, which has none of the threads, gets a new one.
    static Pool& get() {
        static std::mutex mutex;
        static Pool* pool = nullptr;
        static pid_t owner = 0;
        std::lock_guard<std::mutex> lock(mutex);
        if (!pool || owner != getpid()) {
            pool = new Pool;
            owner = getpid();
        }
        return *pool;
    }

    // Runs job(context, thread, threads) once for each thread and returns when all are done.
    int32_t run(int threads, Job job, const void* context) {
        if (threads < 1) return BAD_ARGUMENT;
        std::lock_guard<std::mutex> lock(mutex_);
#if defined(__linux__)
        Mask mine;
        const bool known = mine.load();
        if (known && !(mine == allowed_)) list_cpus(mine);
        const int available = known ? static_cast<int>(cpus_.size()) : 1;
        const bool pin = known && available > 1;  // a caller that has one CPU is pinned already
#else
        const int available = static_cast<int>(std::thread::hardware_concurrency());
        const bool pin = false;
#endif
        if (threads > available) return TOO_MANY_THREADS;
        if (const int32_t status = hire(threads - 1); status != OK) return status;
        job_ = job;
        context_ = context;
        threads_ = threads;
        pending_.store(static_cast<uint32_t>(threads - 1), std::memory_order_relaxed);
        for (int i = 1; i < threads; ++i) {
            Worker& worker = *workers_[i - 1];
            worker.cpu = pin ? cpus_[i] : -1;
            worker.go.fetch_add(1, std::memory_order_release);
            worker.go.notify_one();
        }
        if (pin) pin_to(cpus_[0]);
        job(context, 0, threads);
        for (uint32_t left; (left = pending_.load(std::memory_order_acquire)) != 0;) wait_while_equal(pending_, left);
#if defined(__linux__)
        if (pin) mine.apply();
#endif
        return OK;
    }

private:
    struct alignas(64) Worker {
        std::atomic<uint32_t> go{0};
        int cpu = -1;
    };

    int32_t hire(int wanted) {
        try {
            while (static_cast<int>(workers_.size()) < wanted) {
                workers_.reserve(workers_.size() + 1);
                Worker* worker = new Worker;
                std::thread(&Pool::serve, this, worker, static_cast<int>(workers_.size()) + 1).detach();
                workers_.push_back(worker);
            }
        } catch (const std::system_error&) {
            return NO_THREAD;
        }
        return OK;
    }

    void serve(Worker* worker, int index) {
        uint32_t seen = 0;
        int pinned = -1;
        for (;;) {
            wait_while_equal(worker->go, seen);
            seen = worker->go.load(std::memory_order_acquire);
            if (worker->cpu >= 0 && worker->cpu != pinned) {
                pin_to(worker->cpu);
                pinned = worker->cpu;
            }
            job_(context_, index, threads_);
            if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) pending_.notify_one();
        }
    }

#if defined(__linux__)
    static void pin_to(int cpu) {
        Mask one;
        one.add(cpu);
        one.apply();
    }

    void list_cpus(const Mask& mask) {
        allowed_ = mask;
        cpus_.clear();
        std::vector<int> siblings;
        std::vector<int> leaders;
        for (int cpu = 0; cpu < Mask::CPUS; ++cpu) {
            if (!mask.has(cpu)) continue;
            const int leader = core_leader(cpu);
            bool seen = false;
            for (const int other : leaders) seen = seen || other == leader;
            (seen ? siblings : cpus_).push_back(cpu);
            if (!seen) leaders.push_back(leader);
        }
        cpus_.insert(cpus_.end(), siblings.begin(), siblings.end());
    }

    Mask allowed_;
#else
    static void pin_to(int) {}
#endif

    std::mutex mutex_;
    std::vector<int> cpus_;
    std::vector<Worker*> workers_;
    Job job_ = nullptr;
    const void* context_ = nullptr;
    int threads_ = 1;
    alignas(64) std::atomic<uint32_t> pending_{0};
};

}  // namespace ridgeline
