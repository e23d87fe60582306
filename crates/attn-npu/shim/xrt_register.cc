// What XRT's C interface, and with it the crate `xrt`, lacks: registering an xclbin, which is how an NPU is given one. `device` is what
// that interface's device gives as its driver's handle. Returns 0, or -1 with what XRT said in `text`.

#include <cstddef>
#include <cstdio>
#include <cstring>
#include <exception>
#include <vector>

#include <xrt/experimental/xrt_xclbin.h>
#include <xrt/xrt_device.h>

extern "C" int attn_xrt_register(xclDeviceHandle device, const char *xclbin, std::size_t bytes, unsigned char *uuid, char *text,
                                 std::size_t text_bytes)
{
    try {
        const xrt::xclbin container{std::vector<char>(xclbin, xclbin + bytes)};
        const xrt::uuid registered = xrt::device{device}.register_xclbin(container);
        std::memcpy(uuid, registered.get(), sizeof(xuid_t));
        return 0;
    } catch (const std::exception &exception) {
        std::snprintf(text, text_bytes, "%s", exception.what());
    } catch (...) {
        std::snprintf(text, text_bytes, "an exception without a text");
    }
    return -1;
}
