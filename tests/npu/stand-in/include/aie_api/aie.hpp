// Where the headers of aie_api would be: a stand-in.
