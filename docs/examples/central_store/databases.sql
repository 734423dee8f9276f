CREATE DATABASE waterline OWNER waterline;
CREATE DATABASE waterline_users OWNER waterline;
