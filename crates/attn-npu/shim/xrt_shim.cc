// XRT's C++ interface, as far as a session needs it, for a program that opens this library when it runs.
//
// Nothing is thrown across the border: a function returns 0, or -1 with what XRT said in `error`. One session is one device, one
// hardware context, one kernel; its buffers and runs are numbered in the order in which they are made, and go away with it. A
// session is for one thread at a time. src/runtime/xrt/shim.rs declares all this in Rust.

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <utility>
#include <vector>

#include <xrt/experimental/xrt_xclbin.h>
#include <xrt/xrt_bo.h>
#include <xrt/xrt_device.h>
#include <xrt/xrt_hw_context.h>
#include <xrt/xrt_kernel.h>

namespace {

// What the array's program is started with, before the data: mlir-aie's kernels run instructions with this opcode.
constexpr std::uint64_t kRunInstructions = 3;
constexpr int kOpcode = 0, kInstructions = 1, kWords = 2, kData = 3;

struct Session {
    // In the order in which they need each other: the last one goes first.
    xrt::device device;
    xrt::hw_context context;
    xrt::kernel kernel;
    std::vector<xrt::bo> buffers;
    std::vector<xrt::run> runs;
};

// Where a function says what went wrong.
struct Error {
    char *text;
    std::size_t bytes;

    int operator()(const char *what) const noexcept
    {
        std::snprintf(text, bytes, "%s", what);
        return -1;
    }
};

template <typename Call> int guarded(Error error, Call call) noexcept
{
    try {
        call();
        return 0;
    } catch (const std::exception &exception) {
        return error(exception.what());
    } catch (...) {
        return error("an exception without a text");
    }
}

} // namespace

extern "C" {

// Opens the device of this number.
int attn_xrt_open(unsigned device, Session **session, Error error)
{
    return guarded(error, [&] { *session = new Session{xrt::device{device}, {}, {}, {}, {}}; });
}

// Registers an xclbin, and makes a hardware context for it and its kernel ready.
int attn_xrt_load(Session *session, const char *xclbin, std::size_t bytes, const char *kernel, Error error)
{
    return guarded(error, [&] {
        const xrt::xclbin container{std::vector<char>(xclbin, xclbin + bytes)};
        // Not load_xclbin, which this device's driver does not know.
        const xrt::uuid uuid = session->device.register_xclbin(container);
        session->context = xrt::hw_context{session->device, uuid};
        session->kernel = xrt::kernel{session->context, kernel};
    });
}

// Makes a buffer for an argument, and maps it.
int attn_xrt_buffer(Session *session, int argument, std::size_t bytes, bool instructions, void **map, Error error)
{
    return guarded(error, [&] {
        const auto flags = instructions ? xrt::bo::flags::cacheable : xrt::bo::flags::host_only;
        xrt::bo buffer{session->device, bytes, flags, static_cast<xrt::memory_group>(session->kernel.group_id(argument))};
        *map = buffer.map<void *>();
        session->buffers.push_back(std::move(buffer));
    });
}

// Makes what the host wrote into the first bytes of a buffer visible to the device, or the other way round.
int attn_xrt_sync(Session *session, std::size_t buffer, std::size_t bytes, bool to_device, Error error)
{
    return guarded(error, [&] {
        const auto direction = to_device ? XCL_BO_SYNC_BO_TO_DEVICE : XCL_BO_SYNC_BO_FROM_DEVICE;
        session->buffers.at(buffer).sync(direction, bytes, 0);
    });
}

// Makes a run of the kernel, to be started again and again.
int attn_xrt_run(Session *session, Error error)
{
    return guarded(error, [&] { session->runs.emplace_back(session->kernel); });
}

// Starts a run with all its arguments: those of the command's last use may be another run's.
int attn_xrt_start(Session *session, std::size_t run, std::size_t instructions, std::uint32_t words,
                   const std::size_t *data, std::size_t count, Error error)
{
    return guarded(error, [&] {
        xrt::run &started = session->runs.at(run);
        started.set_arg(kOpcode, kRunInstructions);
        started.set_arg(kInstructions, session->buffers.at(instructions));
        started.set_arg(kWords, words);
        for (std::size_t i = 0; i < count; i++)
            started.set_arg(kData + static_cast<int>(i), session->buffers.at(data[i]));
        started.start();
    });
}

// Waits so many milliseconds at most. `state` becomes 0 if the run is not done then, and else the command's state of ert.h, with what XRT
// says of it in `error` if it failed.
int attn_xrt_wait(Session *session, std::size_t run, std::uint32_t milliseconds, int *state, Error error)
{
    return guarded(error, [&] {
        const auto start = std::chrono::steady_clock::now();
        const auto timeout = std::chrono::milliseconds{milliseconds};
        xrt::run &waited = session->runs.at(run);
        try {
            *state = waited.wait2(timeout) == std::cv_status::timeout ? 0 : ERT_CMD_STATE_COMPLETED;
        } catch (const xrt::run::command_error &failure) {
            *state = failure.get_command_state();
            error(failure.what());
        } catch (const std::exception &) {
            // XRT 2.25 with its NPU plug-in throws at the end of the time: the command itself says whether it is done.
            const ert_cmd_state own = waited.state();
            const bool is_done = own >= ERT_CMD_STATE_COMPLETED && own != ERT_CMD_STATE_SUBMITTED;
            if (!is_done && std::chrono::steady_clock::now() - start < timeout)
                throw;
            *state = is_done ? own : 0;
        }
    });
}

// Ends a session, which has no run that is not done: XRT ends the process otherwise.
void attn_xrt_close(Session *session)
{
    try {
        delete session;
    } catch (...) {
        // Nobody is left to be told.
    }
}
}
