"""How web and gateway are served: uvicorn, with bounds that hold before a request is one."""
